// Structured linear layers (Wei et al., "Building on Efficient Foundations", NeurIPS 2024, arXiv
// 2406.16450): a weight that is the product of two factors, each block diagonal or plain. The kinds
// low_rank, block_dense and block_shuffle differ in the factors' shapes and in how a dense weight
// is projected on them; the rest is here.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "transforms/inner_kind.h"
#include "transforms/kind.h"
#include "transforms/structured/block_factor.h"

namespace refract {

// y = second(first(x)).
struct StructuredForm {
  FactorShape first, second;
  BlockLayout first_layout, second_layout;
  // The best factors [B, m, k] for a dense weight [out, in] (float64, CPU).
  std::function<std::pair<at::Tensor, at::Tensor>(const at::Tensor&)> project;
};

// What the kinds share: parameters "<name>.V.weight" of the first factor and "<name>.U.weight" of
// the second.
class StructuredKind : public Kind {
 public:
  bool transforms_linear() const override { return true; }
  bool takes_guide() const override { return true; }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override;
  // A group of one layer with plain factors: bias and activation ride on its products where they
  // can.
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  void check(const std::string& where) const override { over_.check(where); }
  // The shape must have been checked.
  virtual StructuredForm form(const LinearSpec& spec) const = 0;

 protected:
  StructuredKind(std::string name, std::string init)
      : name_(std::move(name)), init_(std::move(init)) {}
  void describe_common(Fields& fields);

 private:
  std::string name_;
  std::string init_;
  InnerKind over_;  // plain factors where none is named
};

// "2, 4 or 8": the divisors of n from `from` on that may stand for a number of blocks, for errors.
std::string divisors(int64_t n, int64_t from);

}  // namespace refract
