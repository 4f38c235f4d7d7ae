// The layers of the structured kinds: y = second(first(x)), with parameters "<name>.V.weight" of
// the first factor and "<name>.U.weight" of the second.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "model/slots.h"
#include "ops/structured/block_linear.h"
#include "transforms/kind.h"
#include "transforms/structured/block_factor.h"

namespace refract {

// What tells one structured kind from another: its factors' shapes, which features their blocks
// read and write, and how a dense weight is projected on them.
struct StructuredForm {
  FactorShape first, second;
  BlockLayout first_layout, second_layout;
  // The best factors (first, second), each [B, m, k], for a dense weight [out, in] (float64, CPU).
  std::function<std::pair<at::Tensor, at::Tensor>(const at::Tensor&)> project;
};

// `init`: how the factors start, see StructuredKind's parameter. `over`: the kind of their blocks;
// null: plain matrices.
std::unique_ptr<LinearLayer> make_structured_linear(Build build, const LinearSpec& spec,
                                                    StructuredForm form, const std::string& init,
                                                    const Kind* over);

// A group of one layer with plain factors: its bias and activation ride on the second product where
// they can. Enters the layer in build.transformed under the name `kind`.
std::unique_ptr<Projections> make_structured_projections(Build build, const ProjectionSpec& spec,
                                                         StructuredForm form,
                                                         const std::string& init,
                                                         const std::string& kind);

}  // namespace refract
