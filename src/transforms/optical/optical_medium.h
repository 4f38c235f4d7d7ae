// The optical product of a linear layer with a weight that the caller gives, and with ranges of any
// granularity. Per tensor its ranges are the buffers "<name>.x_range", "<name>.w_range" and
// "<name>.out_range", float [2], (+inf, -inf) until they are set. Per token there is no buffer: the
// range is the row's own. Per output channel "<name>.w_range" is [out, 2]. With q_learn the
// parameters "<name>.x_clip" [2], "<name>.w_clip" [2] or [2 out] and "<name>.out_clip" [2] are
// logarithms of what ranges are multiplied by.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/media/medium_product.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {

std::unique_ptr<MediumProduct> make_optical_medium(Build build, const LinearSpec& spec,
                                                   const OpticalParameters& parameters);

// The tensors of such buffers; undefined where there is none.
struct OpticalRanges {
  at::Tensor x, w, out;
};
// For a forward pass with an observer (transforms/media/observer.h): x [..., in] as it is to be
// multiplied, and its product with a weight, [..., out]. Dense but for what the observer does.
at::Tensor observed_input(const OpticalParameters& parameters, const std::string& module,
                          const at::Tensor& x, const at::Tensor& range);
at::Tensor observed_product(const OpticalParameters& parameters, const std::string& module,
                            const at::Tensor& observed_x, const at::Tensor& weight,
                            const OpticalRanges& ranges);

// Shows one role to the observer and returns what it makes of it. `range` undefined: each row its
// own, or `fixed` where that is defined.
at::Tensor observed_role(const OpticalParameters& parameters, const std::string& module,
                         const char* role, const at::Tensor& values, const at::Tensor& range,
                         double lut_min, const at::Tensor& fixed = {});

}  // namespace refract
