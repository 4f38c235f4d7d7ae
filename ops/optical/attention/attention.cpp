// Schema, checks and autograd of optical_attention.
#include "ops/optical/attention/attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/optical/attention/attention_schema.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace attention_op {

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& ranges,
           const OpticalAttentionSettings& settings) {
  const char* op = "optical_attention";
  check_floating(op, "q", q);
  check_like(op, "k", k, "q", q);
  check_like(op, "v", v, "q", q);
  TORCH_CHECK(q.dim() == 4, "refract::", op, ": expected q of shape [B, T, H, D], got ",
              q.sym_sizes());
  TORCH_CHECK(k.dim() == 4 && k.sym_size(0) == q.sym_size(0) && k.sym_size(3) == q.sym_size(3) &&
                  k.sym_size(1) >= q.sym_size(1) && k.sym_size(1) <= (int64_t{1} << 20),
              "refract::", op, ": expected k of shape [", q.sym_size(0), ", S, K, ", q.sym_size(3),
              "] with ", q.sym_size(1), " <= S <= 2^20, got ", k.sym_sizes());
  TORCH_CHECK(k.sym_size(2) >= 1 && q.sym_size(2) % k.sym_size(2) == 0, "refract::", op,
              ": expected the heads of k to divide q's, ", q.sym_size(2), ", got ", k.sym_size(2));
  check_same_shape(op, "v", v, "k", k);
  TORCH_CHECK(ranges.scalar_type() == at::kFloat && ranges.dim() == 2 &&
                  ranges.sym_size(0) == kRoles && ranges.sym_size(1) == 2 && ranges.is_contiguous(),
              "refract::", op, ": expected ranges to be float32 [5, 2] contiguous, got ",
              ranges.scalar_type(), " ", ranges.sym_sizes());
  TORCH_CHECK(ranges.device() == q.device(), "refract::", op, ": expected ranges on ", q.device(),
              " as q, got ", ranges.device());
  TORCH_CHECK(settings.scale > 0, "refract::", op, ": expected scale > 0, got ", settings.scale);
  TORCH_CHECK(!settings.noise || settings.streams.size() == 2, "refract::", op,
              ": expected two streams, of the scores and of the output, got ",
              settings.streams.size());
  optical_op::check_levels(op, settings.levels, settings.lut_min);
  optical_op::check_quantiles(op, settings.quantiles);
  optical_op::check_smooth(op, settings.smooth);
  optical_op::check_clock(op, settings.clock, q);
}

at::Tensor clock_of(const OpticalAttentionSettings& settings, const at::Tensor& like) {
  if (settings.clock.has_value()) return *settings.clock;
  at::Tensor clock = at::full({2}, int64_t{0}, like.options().dtype(at::kLong));
  clock.select(0, 0).fill_(-1);
  return clock;
}

ForwardResult forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      at::Tensor ranges, bool with_mean, REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  static const auto op = find_op<decltype(forward)>("refract::optical_attention_forward");
  const auto settings = REFRACT_ATTENTION_SETTINGS_PACK;
  return op.call(q, k, v, std::move(ranges), with_mean,
                 REFRACT_ATTENTION_SETTINGS_UNPACK(settings));
}

BackwardResult backward(const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v, const at::Tensor& out, const at::Tensor& normalizer,
                        const at::Tensor& used, const at::Tensor& mean,
                        REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  static const auto op = find_op<decltype(backward)>("refract::optical_attention_backward");
  const auto settings = REFRACT_ATTENTION_SETTINGS_PACK;
  return op.call(grad_out, q, k, v, out, normalizer, used, mean,
                 REFRACT_ATTENTION_SETTINGS_UNPACK(settings));
}

}  // namespace attention_op

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& ranges,
                            const OpticalAttentionSettings& s) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, normalizer, used, mean] =
        attention_op::forward(q, k, v, ranges, attention_op::has_hopper_shape(q, s),
                              REFRACT_ATTENTION_SETTINGS_UNPACK(s));
    ctx->save_for_backward({q, k, v, out, normalizer, used, mean, s.clock.value_or(at::Tensor())});
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
    auto [q, k, v] =
        attention_op::backward(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5],
                               saved[6], REFRACT_ATTENTION_SETTINGS_UNPACK(s));
    return {q, k, v, at::Tensor(), at::Tensor()};
  }
};

at::Tensor attention_plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           at::Tensor ranges, REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  const auto settings = REFRACT_ATTENTION_SETTINGS_PACK;
  return std::get<0>(attention_op::forward(q, k, v, std::move(ranges), false,
                                           REFRACT_ATTENTION_SETTINGS_UNPACK(settings)));
}

at::Tensor attention_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              at::Tensor ranges, REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  const auto settings = REFRACT_ATTENTION_SETTINGS_PACK;
  if (any_gradient(q, k, v)) return Attention::apply(q, k, v, ranges, settings);
  at::AutoDispatchBelowADInplaceOrView below;
  return std::get<0>(attention_op::forward(q, k, v, std::move(ranges), false,
                                           REFRACT_ATTENTION_SETTINGS_UNPACK(settings)));
}

attention_op::ForwardResult forward_composite(const at::Tensor& q, const at::Tensor& k,
                                              const at::Tensor& v, at::Tensor ranges,
                                              bool with_mean,
                                              REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  return attention_op::result_of(composite::optical_attention_forward(
                                     q, k, v, std::move(ranges), REFRACT_ATTENTION_SETTINGS_PACK),
                                 attention_op::mean_like(q, with_mean));
}

attention_op::BackwardResult backward_composite(const at::Tensor& grad_out, const at::Tensor& q,
                                                const at::Tensor& k, const at::Tensor& v,
                                                const at::Tensor&, const at::Tensor&,
                                                const at::Tensor& used, const at::Tensor&,
                                                REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  return attention_op::result_of(composite::optical_attention_backward(
      grad_out, q, k, v, used, REFRACT_ATTENTION_SETTINGS_PACK));
}

// The fake forms know shapes only, symbolic ones too. The dispatcher wants one signature of all
// forms.
// NOLINTBEGIN(performance-unnecessary-value-param)
attention_op::ForwardResult forward_meta(const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, at::Tensor ranges, bool with_mean,
                                         REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  attention_op::check(q, k, v, ranges, REFRACT_ATTENTION_SETTINGS_PACK);
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(0), q.sym_size(2), q.sym_size(1)}, q.options().dtype(wide)),
          at::empty_symint(ranges.sym_sizes(), ranges.options()),
          attention_op::mean_like(q, with_mean)};
}
// NOLINTEND(performance-unnecessary-value-param)

attention_op::BackwardResult backward_meta(const at::Tensor&, const at::Tensor& q,
                                           const at::Tensor& k, const at::Tensor& v,
                                           const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                           const at::Tensor&,
                                           REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  static_cast<void>(REFRACT_ATTENTION_SETTINGS_PACK);
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint(k.sym_sizes(), k.options()),
          at::empty_symint(v.sym_sizes(), v.options())};
}

}  // namespace

at::Tensor optical_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             at::Tensor ranges, const OpticalAttentionSettings& settings) {
  static const auto op = find_op<decltype(attention_plain)>("refract::optical_attention");
  return op.call(q, k, v, std::move(ranges), REFRACT_ATTENTION_SETTINGS_UNPACK(settings));
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "optical_attention(Tensor q, Tensor k, Tensor v, Tensor(a!) ranges,"
      " " REFRACT_ATTENTION_SETTINGS_SCHEMA ") -> Tensor");
  m.def(
      "optical_attention_forward(Tensor q, Tensor k, Tensor v, Tensor(a!) ranges, bool with_mean,"
      " " REFRACT_ATTENTION_SETTINGS_SCHEMA
      ") -> (Tensor out, Tensor normalizer, Tensor used, Tensor mean)");
  m.def(
      "optical_attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out,"
      " Tensor normalizer, Tensor used, Tensor mean, " REFRACT_ATTENTION_SETTINGS_SCHEMA
      ") -> (Tensor grad_q, Tensor grad_k, Tensor grad_v)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("optical_attention", attention_plain);
  m.impl("optical_attention_forward", forward_composite);
  m.impl("optical_attention_backward", backward_composite);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("optical_attention", attention_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("optical_attention_forward", forward_meta);
  m.impl("optical_attention_backward", backward_meta);
}

}  // namespace refract
