#include "transforms/structured/structured_kind.h"

#include <fmt/format.h>

#include <vector>

namespace refract {

void StructuredKind::describe_common(Fields& fields) {
  fields.add("init", init_,
             "starting values: of the SVD of a drawn dense weight, orthonormal factors, or normal "
             "ones, with variance 1 / inputs or such that the product has the dense deviation",
             {"svd", "ortho", "xavier", "normal"});
  fields.add("joint", joint_,
             "gate and up of a SwiGLU feed-forward are one layer with a shared first factor");
  over_.describe(fields,
                 "the kind that multiplies by each factor: a name, or a table with its parameters");
}

std::unique_ptr<LinearLayer> StructuredKind::linear(Build build, const LinearSpec& spec) const {
  return make_structured_linear(build, spec, form(spec), init_, over_.get());
}

std::unique_ptr<Projections> StructuredKind::projections(Build build,
                                                         const ProjectionSpec& spec) const {
  if (spec.members.size() != 1 || over_.get()) return nullptr;
  return make_structured_projections(build, spec, form(spec.members[0]), init_, name());
}

Energy StructuredKind::energy(const ProductShape& product, const EnergyConstants& constants) const {
  if (!over_.get()) return {digital_energy(product.multiplications, constants), 0};
  LinearSpec spec;
  spec.in_features = product.inputs;
  spec.out_features = product.outputs;
  const StructuredForm factors = form(spec);
  Energy energy;
  for (const FactorShape& factor : {factors.first, factors.second}) {
    ProductShape block;
    block.inputs = factor.in;
    block.outputs = factor.out;
    block.times = static_cast<double>(factor.blocks);
    block.multiplications = block.dense();
    energy = energy + over_.energy(block, constants);
  }
  return energy;
}

std::string divisors(int64_t n, int64_t from) {
  std::vector<int64_t> found;
  for (int64_t d = from; d <= n && found.size() < 12; ++d) {
    if (n % d == 0) found.push_back(d);
  }
  if (found.empty()) return "none";
  if (found.size() == 1) return std::to_string(found[0]);
  const int64_t last = found.back();
  found.pop_back();
  return fmt::format("{} or {}", fmt::join(found, ", "), last);
}

bool nearer_to_smaller_size(double share) { return share < (0.63 + 0.32) / 2; }

}  // namespace refract
