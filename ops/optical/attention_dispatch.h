// The flat argument list of the optical attention ops' schemas.
#pragma once
#include <ATen/ops/empty.h>

#include <cstdlib>
#include <string_view>

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

// out, normalizer, used and mean, sum_j P v before any quantization: filled only by the kernels
// whose backward pass reads it, [B, T, H, D] where it was asked, else [0].
using ForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using BackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
// Whether the kernels for compute capability 9.0 are to be used: REFRACT_OPTICAL_HOPPER=1. They
// were compared with the others on a device launch by launch; until the ops' own tests have run
// there with them, they are used on request only.
inline bool hopper_requested() {
  static const bool requested = [] {
    const char* set = std::getenv("REFRACT_OPTICAL_HOPPER");
    return set != nullptr && std::string_view(set) == "1";
  }();
  return requested;
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
