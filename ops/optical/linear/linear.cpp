// Schema, composite form and autograd of optical_linear.
#include "ops/dense/linear/linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/optical/matmul/product.h"
#include "ops/optical/matmul/product_schema.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace composite {
namespace {

// Q(x) in the type that is computed in.
at::Tensor quantized(const at::Tensor& x, const at::Tensor& used, const OpticalSettings& s,
                     double lut_min) {
  return optical_values(optical_levels(x, used, s.levels, {}), used, s.levels, lut_min);
}

}  // namespace

at::Tensor optical_output(const at::Tensor& product, const std::optional<at::Tensor>& bias,
                          const at::Tensor& range, const OpticalSettings& s, size_t member) {
  const at::Tensor used = optical_effective(range, optical_seen(product, s.quantiles));
  const int64_t stream = member < s.streams.size() ? s.streams[member] : 0;
  const at::Tensor xi = optical_xi(product.sizes(), product.device(), s.noise, s.shared_noise,
                                   s.clock, s.seed, stream);
  at::Tensor y = optical_values(optical_levels(product, used, s.levels, xi), used, s.levels, 0);
  if (bias.has_value()) y = y.add(bias->to(y.scalar_type()));
  if (s.train) {
    const at::Tensor seen = optical_seen(s.clipped_ranges ? y : product, s.quantiles);
    optical_move_(range, s.clipped_ranges ? used : range, seen, s.smooth);
  }
  return y;
}

at::Tensor optical_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                          at::TensorList w_ranges, at::TensorList out_ranges,
                          at::IntArrayRef splits, const OpticalOperand& weight_encoded,
                          bool move_weights, const OpticalSettings& s) {
  optical_op::check_linear(x, weight, bias, x_range, w_ranges, out_ranges, splits, s);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  if (x.numel() == 0) return at::empty(sizes, x.options());
  const at::Tensor seen = optical_seen(x, s.quantiles);
  const at::Tensor x_quantized = quantized(x, optical_effective(x_range, seen), s, 0);
  std::vector<at::Tensor> outputs;
  int64_t begin = 0;
  for (size_t m = 0; m < splits.size(); ++m) {
    const auto member = static_cast<int64_t>(m);
    const at::Tensor w = quantized(weight.narrow(0, begin, splits[m]),
                                   weight_encoded.used.select(0, member), s, s.lut_min);
    std::optional<at::Tensor> b;
    if (bias.has_value()) b = bias->narrow(0, begin, splits[m]);
    outputs.push_back(optical_output(at::linear(x_quantized, w), b, out_ranges[m], s, m));
    if (s.train && move_weights) {
      const at::Tensor parts = weight_encoded.seen.select(0, member);
      const at::Tensor limits = at::stack({parts.select(1, 0).amin(), parts.select(1, 1).amax()});
      optical_move_(w_ranges[m], w_ranges[m], limits, s.smooth);
    }
    begin += splits[m];
  }
  if (s.train) optical_move_(x_range, x_range, seen, s.smooth);
  return at::cat(outputs, -1).to(x.scalar_type());
}

}  // namespace composite

namespace {

using optical_op::EncodeResult;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward_plain(const at::Tensor& x, const at::Tensor& weight, at::TensorList encoded,
                         const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                         at::TensorList w_ranges, at::TensorList out_ranges, at::IntArrayRef splits,
                         bool move_weights, REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  return composite::optical_linear(x, weight, bias, x_range, w_ranges, out_ranges, splits,
                                   optical_op::operand_of(encoded), move_weights,
                                   REFRACT_OPTICAL_SETTINGS_PACK);
}

at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& weight, at::TensorList encoded,
                        const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                        at::TensorList w_ranges, at::TensorList out_ranges, at::IntArrayRef splits,
                        bool, REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  optical_op::operand_of(encoded);
  optical_op::check_linear(x, weight, bias, x_range, w_ranges, out_ranges, splits,
                           REFRACT_OPTICAL_SETTINGS_PACK);
  auto sizes = x.sym_sizes().vec();
  sizes.back() = weight.sym_size(0);
  return at::empty_symint(sizes, x.options());
}

// What optical_linear takes beside the three tensors that have a gradient.
struct LinearCall {
  at::Tensor x_range;
  at::TensorList w_ranges, out_ranges;
  at::IntArrayRef splits;
  at::TensorList encoded;  // empty: the weight is encoded now
  bool move_weights;
  const OpticalSettings& settings;

  at::Tensor operator()(const at::Tensor& x, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias) const {
    at::AutoDispatchBelowADInplaceOrView below;
    if (!encoded.empty()) return forward(x, weight, bias, encoded);
    const OpticalOperand made = optical_encode(weight, w_ranges, splits, settings);
    return forward(x, weight, bias, {made.codes, made.sums, made.used, made.seen});
  }

 private:
  at::Tensor forward(const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, at::TensorList operand) const {
    return optical_op::linear_forward(x, weight, operand, bias, x_range, w_ranges, out_ranges,
                                      splits, move_weights,
                                      REFRACT_OPTICAL_SETTINGS_UNPACK(settings));
  }
};

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const LinearCall& call) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return call(x, weight, bias);
  }
  // The dense layer's.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1),
               need_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    auto [x, weight, bias] =
        linear_backward(grads[0], saved[0], saved[1], need_x, need_weight, need_bias);
    return {need_x ? x : at::Tensor(), need_weight ? weight : at::Tensor(),
            need_bias ? bias : at::Tensor(), at::Tensor()};
  }
};

at::Tensor linear_autograd(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                           at::TensorList w_ranges, at::TensorList out_ranges,
                           at::IntArrayRef splits, at::TensorList encoded, bool move_weights,
                           REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  const OpticalSettings settings = REFRACT_OPTICAL_SETTINGS_PACK;
  const LinearCall call{x_range, w_ranges, out_ranges, splits, encoded, move_weights, settings};
  if (any_gradient(x, weight, bias)) return Linear::apply(x, weight, bias, call);
  return call(x, weight, bias);
}

}  // namespace

at::Tensor optical_op::linear_forward(const at::Tensor& x, const at::Tensor& weight,
                                      at::TensorList encoded, const std::optional<at::Tensor>& bias,
                                      const at::Tensor& x_range, at::TensorList w_ranges,
                                      at::TensorList out_ranges, at::IntArrayRef splits,
                                      bool move_weights, REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  static const auto op = find_op<decltype(linear_forward)>("refract::optical_linear_forward");
  return op.call(x, weight, encoded, bias, x_range, w_ranges, out_ranges, splits, move_weights,
                 levels, lut_min, smooth, quantiles, train, ranges_set, clipped_ranges, noise,
                 shared_noise, clock, seed, streams);
}

at::Tensor optical_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                          at::TensorList w_ranges, at::TensorList out_ranges,
                          at::IntArrayRef splits, const OpticalOperand* weight_encoded,
                          bool move_weights, const OpticalSettings& settings) {
  static const auto op = find_op<decltype(linear_autograd)>("refract::optical_linear");
  std::vector<at::Tensor> encoded;
  if (weight_encoded != nullptr) {
    encoded = {weight_encoded->codes, weight_encoded->sums, weight_encoded->used,
               weight_encoded->seen};
  }
  return op.call(x, weight, bias, x_range, w_ranges, out_ranges, splits, encoded, move_weights,
                 REFRACT_OPTICAL_SETTINGS_UNPACK(settings));
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "optical_linear(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) x_range,"
      " Tensor(b!)[] w_ranges, Tensor(c!)[] out_ranges, int[] splits, Tensor[] weight_encoded,"
      " bool move_weights=True, " REFRACT_OPTICAL_SETTINGS_SCHEMA ") -> Tensor");
  m.def(
      "optical_linear_forward(Tensor x, Tensor weight, Tensor[] encoded, Tensor? bias,"
      " Tensor(a!) x_range, Tensor(b!)[] w_ranges, Tensor(c!)[] out_ranges, int[] splits,"
      " bool move_weights, " REFRACT_OPTICAL_SETTINGS_SCHEMA ") -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("optical_linear", linear_autograd);
  m.impl("optical_linear_forward", forward_plain);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("optical_linear", linear_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("optical_linear_forward", forward_meta); }

}  // namespace refract
