#include "analysis/matching/linear_assignment.h"

#include <cmath>
#include <limits>
#include <stdexcept>

namespace refract {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Costs are negative scores. With potentials u (rows) and v (columns) reduced costs
// cost - u - v stay >= 0 and are 0 on the assignment, which makes it optimal.
class Assignment {
 public:
  Assignment(std::span<const double> score, int64_t n)
      : score_(score), n_(n), row_potential_(n, 0), column_potential_(n, 0), row_of_(n, -1) {}

  std::vector<int64_t> solve() {
    for (int64_t row = 0; row < n_; ++row) augment(row);
    std::vector<int64_t> column_of(n_);
    for (int64_t column = 0; column < n_; ++column) column_of[row_of_[column]] = column;
    return column_of;
  }

 private:
  // Finds the cheapest alternating path from a free row to a free column (Dijkstra over columns)
  // and flips it.
  void augment(int64_t start) {
    std::vector<double> distance(n_, kInfinity);
    std::vector<int64_t> previous(n_, -1);  // column before this one on the path; -1: the start
    std::vector<char> settled(n_, 0);
    std::vector<int64_t> path;  // settled columns
    int64_t row = start, last = -1;
    double reached = 0;
    while (true) {
      int64_t nearest = -1;
      const double* scores = score_.data() + row * n_;
      const double base = reached - row_potential_[row];
      for (int64_t column = 0; column < n_; ++column) {
        if (settled[column]) continue;
        const double through = base - scores[column] - column_potential_[column];
        if (through < distance[column]) {
          distance[column] = through;
          previous[column] = last;
        }
        if (nearest < 0 || distance[column] < distance[nearest]) nearest = column;
      }
      reached = distance[nearest];
      settled[nearest] = 1;
      last = nearest;
      if (row_of_[nearest] < 0) break;
      path.push_back(nearest);
      row = row_of_[nearest];
    }
    row_potential_[start] += reached;
    for (int64_t column : path) {
      row_potential_[row_of_[column]] += reached - distance[column];
      column_potential_[column] -= reached - distance[column];
    }
    for (int64_t column = last; column >= 0;) {
      const int64_t before = previous[column];
      row_of_[column] = before < 0 ? start : row_of_[before];
      column = before;
    }
  }

  std::span<const double> score_;
  int64_t n_;
  std::vector<double> row_potential_, column_potential_;
  std::vector<int64_t> row_of_;  // per column, -1: free
};

}  // namespace

std::vector<int64_t> maximal_assignment(std::span<const double> score, int64_t n) {
  if (static_cast<int64_t>(score.size()) != n * n)
    throw std::logic_error("an assignment takes a square matrix of scores");
  for (double value : score) {
    if (!std::isfinite(value))
      throw std::logic_error("an assignment needs scores that are finite numbers");
  }
  return Assignment(score, n).solve();
}

}  // namespace refract
