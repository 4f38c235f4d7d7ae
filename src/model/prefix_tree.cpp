#include "model/prefix_tree.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace refract {
namespace {

using Window = std::span<const int32_t>;  // the inputs, and the last one's target

std::vector<Window> sorted_windows(std::span<const int32_t> stream, int64_t context) {
  const auto size = static_cast<size_t>(context);
  std::vector<Window> windows;
  for (size_t begin = 0; begin + 1 < stream.size(); begin += size)
    windows.push_back(stream.subspan(begin, std::min(size + 1, stream.size() - begin)));
  std::ranges::sort(windows, [](const Window& a, const Window& b) {
    return std::ranges::lexicographical_compare(a, b);
  });
  return windows;
}

at::Tensor tensor_of(const std::vector<int64_t>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::ranges::copy(values, out.mutable_data_ptr<int64_t>());
  return out;
}

class Builder {
 public:
  explicit Builder(int64_t context)
      : node_at_(static_cast<size_t>(context)), pair_at_(static_cast<size_t>(context) + 1) {}

  int64_t nodes() const { return static_cast<int64_t>(tokens_.size()); }

  // Windows come in ascending order.
  void add(const Window& window) {
    const auto shared =
        static_cast<size_t>(std::ranges::mismatch(before_, window).in2 - window.begin());
    // The last token of the window before has no node: it is only a target.
    const size_t known = before_.empty() ? 0 : std::min(shared, before_.size() - 1);
    for (size_t i = known; i + 1 < window.size(); ++i) {
      node_at_[i] = nodes();
      tokens_.push_back(window[i]);
      depths_.push_back(static_cast<int64_t>(i));
    }
    for (size_t i = 1; i < window.size(); ++i) {
      if (i >= shared) {
        pair_at_[i] = pairs_.size();
        pairs_.push_back({node_at_[i - 1], window[i], 0});
      }
      ++pairs_[pair_at_[i]].count;
    }
    before_ = window;
  }

  PrefixTree take() {
    std::ranges::stable_sort(pairs_, {}, &Pair::row);
    std::vector<int64_t> rows, targets, counts;
    for (const Pair& pair : pairs_) {
      rows.push_back(pair.row);
      targets.push_back(pair.target);
      counts.push_back(pair.count);
    }
    PrefixTree tree{tensor_of(tokens_), tensor_of(depths_), tensor_of(rows),
                    tensor_of(targets), tensor_of(counts),  *std::ranges::max_element(depths_) + 1};
    tokens_.clear();
    depths_.clear();
    pairs_.clear();
    before_ = {};
    return tree;
  }

 private:
  struct Pair {
    int64_t row, target, count;
  };
  std::vector<int64_t> tokens_, depths_;
  std::vector<Pair> pairs_;
  // Of the window before: its nodes, and its pairs by the position of their target.
  std::vector<int64_t> node_at_;
  std::vector<size_t> pair_at_;
  Window before_;
};

}  // namespace

std::vector<PrefixTree> prefix_trees(std::span<const int32_t> stream, int64_t context,
                                     int64_t most_nodes) {
  std::vector<PrefixTree> trees;
  Builder builder(context);
  for (const Window& window : sorted_windows(stream, context)) {
    builder.add(window);
    if (builder.nodes() >= most_nodes) trees.push_back(builder.take());
  }
  if (builder.nodes() > 0) trees.push_back(builder.take());
  return trees;
}

double distinct_share(const std::vector<PrefixTree>& trees) {
  int64_t nodes = 0, predicted = 0;
  for (const PrefixTree& tree : trees) {
    nodes += tree.nodes();
    predicted += tree.counts.sum().item<int64_t>();
  }
  return static_cast<double>(nodes) / static_cast<double>(predicted);
}

}  // namespace refract
