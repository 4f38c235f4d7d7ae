// Schema, checks and autograd of optical_attention.
#include "ops/optical/attention/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <string>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/cuda_runtime.h"
#include "ops/common/define.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace attention_op {

void check(const OpticalAttentionForwardInputs& in) {
  const char* op = "optical_attention";
  check_floating(op, "q", in.q);
  check_like(op, "k", in.k, "q", in.q);
  check_like(op, "v", in.v, "q", in.q);
  TORCH_CHECK(in.q.dim() == 4, "refract::", op, ": expected q of shape [B, T, H, D], got ",
              in.q.sym_sizes());
  TORCH_CHECK(in.k.dim() == 4 && in.k.sym_size(0) == in.q.sym_size(0) &&
                  in.k.sym_size(3) == in.q.sym_size(3) && in.k.sym_size(1) >= in.q.sym_size(1) &&
                  in.k.sym_size(1) <= (int64_t{1} << 20),
              "refract::", op, ": expected k of shape [", in.q.sym_size(0), ", S, K, ",
              in.q.sym_size(3), "] with ", in.q.sym_size(1), " <= S <= 2^20, got ",
              in.k.sym_sizes());
  TORCH_CHECK(in.k.sym_size(2) >= 1 && in.q.sym_size(2) % in.k.sym_size(2) == 0, "refract::", op,
              ": expected the heads of k to divide q's, ", in.q.sym_size(2), ", got ",
              in.k.sym_size(2));
  check_same_shape(op, "v", in.v, "k", in.k);
  TORCH_CHECK(in.ranges.scalar_type() == at::kFloat && in.ranges.dim() == 2 &&
                  in.ranges.sym_size(0) == kRoles && in.ranges.sym_size(1) == 2 &&
                  in.ranges.is_contiguous(),
              "refract::", op, ": expected ranges to be float32 [5, 2] contiguous, got ",
              in.ranges.scalar_type(), " ", in.ranges.sym_sizes());
  TORCH_CHECK(in.ranges.device() == in.q.device(), "refract::", op, ": expected ranges on ",
              in.q.device(), " as q, got ", in.ranges.device());
  TORCH_CHECK(in.settings.scale > 0, "refract::", op, ": expected scale > 0, got ",
              in.settings.scale);
  TORCH_CHECK(!in.settings.noise || in.settings.streams.size() == 2, "refract::", op,
              ": expected two streams, of the scores and of the output, got ",
              in.settings.streams.size());
  if (in.settings.call_noise.has_value()) {
    const at::Tensor& numbers = *in.settings.call_noise;
    check_vector(op, "call_noise", numbers, 2);
    TORCH_CHECK(numbers.scalar_type() == at::kFloat && numbers.device() == in.q.device(),
                "refract::", op, ": expected call_noise to be float32 on ", in.q.device(),
                " as q, got ", numbers.scalar_type(), " on ", numbers.device());
  }
  optical_op::check_levels(op, in.settings.levels, in.settings.lut_min);
  optical_op::check_quantiles(op, in.settings.quantiles);
  optical_op::check_smooth(op, in.settings.smooth);
  optical_op::check_clock(op, in.settings.clock, in.q);
}

at::Tensor clock_of(const OpticalAttentionSettings& settings, const at::Tensor& like) {
  if (settings.clock.has_value()) return *settings.clock;
  at::Tensor clock = at::full({2}, int64_t{0}, like.options().dtype(at::kLong));
  clock.select(0, 0).fill_(-1);
  return clock;
}

bool has_hopper_shape(const at::Tensor& q, const OpticalAttentionSettings& settings) {
  const bool half = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  // Where there are no numbers, as where there are most.
  if (!(q.is_cuda() || q.is_meta()) || !half || q.sym_size(3) != 64 || settings.levels > 256)
    return false;
  if (settings.call_noise.has_value()) return false;
  const CudaRuntime* cuda = cuda_runtime();
  return cuda == nullptr || cuda->has_hopper_kernels();
}

at::Tensor mean_like(const at::Tensor& q, bool with_mean) {
  return with_mean ? at::empty_symint(q.sym_sizes(), q.options()) : at::empty({0}, q.options());
}

}  // namespace attention_op

namespace {

struct Attention {
  static at::Tensor forward(AutogradContext* ctx, const OpticalAttentionInputs& in) {
    const OpticalAttentionSettings& s = in.settings;
    auto [out, normalizer, used, mean] = optical_attention_forward(
        in.q, in.k, in.v, in.ranges, attention_op::has_hopper_shape(in.q, s), s);
    ctx->save_for_backward({in.q, in.k, in.v, out, normalizer, used, mean,
                            value_or_undefined(s.clock), value_or_undefined(s.call_noise)});
    auto& data = ctx->saved_data;
    data["scale"] = s.scale;
    data["levels"] = s.levels;
    data["lut_min"] = s.lut_min;
    data["quantiles"] = s.quantiles;
    data["noise"] = s.noise;
    data["shared_noise"] = s.shared_noise;
    data["seed"] = s.seed;
    data["streams"] = s.streams;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    OpticalAttentionSettings s;
    s.scale = data["scale"].toDouble();
    s.levels = data["levels"].toInt();
    s.lut_min = data["lut_min"].toDouble();
    s.quantiles = data["quantiles"].toDoubleVector();
    s.noise = data["noise"].toBool();
    s.shared_noise = data["shared_noise"].toOptional<double>();
    s.seed = data["seed"].toInt();
    s.streams = data["streams"].toIntVector();
    s.clock = optional_of(saved[7]);
    s.call_noise = optional_of(saved[8]);
    auto [q, k, v] = optical_attention_backward(grads[0], saved[0], saved[1], saved[2], saved[3],
                                                saved[4], saved[5], saved[6], s);
    return {q, k, v};
  }
};

at::Tensor attention_plain(const OpticalAttentionInputs& in) {
  return optical_attention_forward(in.q, in.k, in.v, in.ranges, false, in.settings).out;
}

at::Tensor attention_autograd(const OpticalAttentionInputs& in) {
  if (any_gradient(in.q, in.k, in.v)) {
    return Recorded<Attention>::apply(in.q, in.k, in.v, in);
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return attention_plain(in);
}

// The fake forms know shapes only, symbolic ones too.
OpticalAttentionResult forward_meta(const OpticalAttentionForwardInputs& in) {
  attention_op::check(in);
  const at::Tensor& q = in.q;
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(0), q.sym_size(2), q.sym_size(1)}, q.options().dtype(wide)),
          at::empty_symint(in.ranges.sym_sizes(), in.ranges.options()),
          attention_op::mean_like(q, in.with_mean)};
}

OpticalAttentionGradients backward_meta(const OpticalAttentionBackwardInputs& in) {
  return {at::empty_symint(in.q.sym_sizes(), in.q.options()),
          at::empty_symint(in.k.sym_sizes(), in.k.options()),
          at::empty_symint(in.v.sym_sizes(), in.v.options())};
}

// The settings' part of the schemas.
std::string settings() {
  return std::string("float scale, bool scaled_score_range=False, Tensor? call_noise=None, ") +
         optical_op::kSettings;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, optical_attention,
         "(Tensor q, Tensor k, Tensor v, Tensor(a!) ranges, " + settings() + ") -> Tensor")
      .composite<attention_plain>()
      .autograd<attention_autograd>();
  define(m, optical_attention_forward,
         "(Tensor q, Tensor k, Tensor v, Tensor(a!) ranges, bool with_mean, " + settings() +
             ") -> (Tensor out, Tensor normalizer, Tensor used, Tensor mean)")
      .composite<composite::optical_attention_forward>()
      .meta<forward_meta>();
  define(m, optical_attention_backward,
         "(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor normalizer,"
         " Tensor used, Tensor mean, " +
             settings() + ") -> (Tensor grad_q, Tensor grad_k, Tensor grad_v)")
      .composite<composite::optical_attention_backward>()
      .meta<backward_meta>();
}

}  // namespace refract
