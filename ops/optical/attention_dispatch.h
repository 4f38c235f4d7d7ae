// The flat argument list of the optical attention ops' schemas.
#pragma once
#include "ops/optical/attention.h"
#include "ops/optical/dispatch.h"

#define REFRACT_ATTENTION_SETTINGS_SCHEMA \
  "float scale, bool scaled_score_range=False, " REFRACT_OPTICAL_SETTINGS_SCHEMA
#define REFRACT_ATTENTION_SETTINGS_PARAMETERS \
  double scale, bool scaled_score_range, REFRACT_OPTICAL_SETTINGS_PARAMETERS
#define REFRACT_ATTENTION_SETTINGS_PACK \
  ::refract::OpticalAttentionSettings { {REFRACT_OPTICAL_SETTINGS_PACK}, scale, scaled_score_range }
#define REFRACT_ATTENTION_SETTINGS_UNPACK(s) \
  (s).scale, (s).scaled_score_range, REFRACT_OPTICAL_SETTINGS_UNPACK(s)

namespace refract::attention_op {

using ForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using BackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
inline ForwardResult result_of(const OpticalAttentionResult& r) {
  return {r.out, r.normalizer, r.used};
}
inline BackwardResult result_of(const OpticalAttentionGradients& g) { return {g.q, g.k, g.v}; }

// The ops below autograd.
ForwardResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      at::Tensor ranges, REFRACT_ATTENTION_SETTINGS_PARAMETERS);
BackwardResult backward(const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v, const at::Tensor& out, const at::Tensor& normalizer,
                        const at::Tensor& used, REFRACT_ATTENTION_SETTINGS_PARAMETERS);

}  // namespace refract::attention_op
