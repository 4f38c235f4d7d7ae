// The flat argument list of the optical attention ops' schemas.
#pragma once
#include <ATen/ops/empty.h>

#include "ops/common/cuda_runtime.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/matmul/product_schema.h"

#define REFRACT_ATTENTION_SETTINGS_SCHEMA \
  "float scale, bool scaled_score_range=False, " REFRACT_OPTICAL_SETTINGS_SCHEMA
#define REFRACT_ATTENTION_SETTINGS_PARAMETERS \
  double scale, bool scaled_score_range, REFRACT_OPTICAL_SETTINGS_PARAMETERS
#define REFRACT_ATTENTION_SETTINGS_PACK \
  ::refract::OpticalAttentionSettings { {REFRACT_OPTICAL_SETTINGS_PACK}, scale, scaled_score_range }
#define REFRACT_ATTENTION_SETTINGS_UNPACK(s) \
  (s).scale, (s).scaled_score_range, REFRACT_OPTICAL_SETTINGS_UNPACK(s)

namespace refract::attention_op {

// out, normalizer, used and mean, sum_j P v before any quantization: filled only by the kernels
// whose backward pass reads it, [B, T, H, D] where it was asked, else [0].
using ForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using BackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
// Whether the kernels for compute capability 9.0 do this call, whose backward pass reads the mean.
inline bool has_hopper_shape(const at::Tensor& q, const OpticalAttentionSettings& s) {
  const bool half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  if (!q.is_cuda() || !half || q.sym_size(3) != 64 || s.levels > 256) return false;
  const CudaRuntime* cuda = cuda_runtime();
  return cuda == nullptr || cuda->compute_capability() == 90;
}
inline at::Tensor mean_like(const at::Tensor& q, bool with_mean) {
  return with_mean ? at::empty_symint(q.sym_sizes(), q.options()) : at::empty({0}, q.options());
}
inline ForwardResult result_of(const OpticalAttentionResult& r, const at::Tensor& mean) {
  return {r.out, r.normalizer, r.used, mean};
}
inline BackwardResult result_of(const OpticalAttentionGradients& g) { return {g.q, g.k, g.v}; }

// The ops below autograd. with_mean: a backward pass may follow.
ForwardResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      at::Tensor ranges, bool with_mean, REFRACT_ATTENTION_SETTINGS_PARAMETERS);
BackwardResult backward(const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v, const at::Tensor& out, const at::Tensor& normalizer,
                        const at::Tensor& used, const at::Tensor& mean,
                        REFRACT_ATTENTION_SETTINGS_PARAMETERS);

}  // namespace refract::attention_op
