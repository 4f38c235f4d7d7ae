// Structured linear layers (Wei et al., "Building on Efficient Foundations", NeurIPS 2024, arXiv
// 2406.16450): a weight that is the product of two factors, each block diagonal or plain. A kind of
// them says its StructuredForm and its parameters; the rest is here.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "transforms/inner_kind.h"
#include "transforms/kind.h"
#include "transforms/structured/structured_linear.h"

namespace refract {

// What the kinds share: the parameters `init`, `joint` and `over`, the layers, and that they take a
// guide.
class StructuredKind : public Kind {
 public:
  bool transforms_linear() const override { return true; }
  bool takes_guide() const override { return true; }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override;
  // Of groups of one layer with plain factors.
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  void check(const std::string& where) const override { over_.check(where); }
  // Of the factors, in the kind that multiplies by them.
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override;
  // The shape must have been checked by check_shape().
  virtual StructuredForm form(const LinearSpec& spec) const = 0;
  // Whether gate and up of a SwiGLU feed-forward are one layer of this kind (joint_projections.h).
  bool joint() const { return joint_; }

 protected:
  explicit StructuredKind(std::string init) : init_(std::move(init)) {}  // its default
  // Adds what all of them take, behind a kind's own parameters.
  void describe_common(Fields& fields);

 private:
  std::string init_;
  bool joint_ = false;
  InnerKind over_;  // plain factors where none is named
};

// "2, 4 or 8": the divisors of n from `from` on that may stand for a number of blocks, for errors.
std::string divisors(int64_t n, int64_t from);

// Whether a share of the dense weights is nearer to the smaller of the two sizes that were
// published, 63% and 32%.
bool nearer_to_smaller_size(double share);

}  // namespace refract
