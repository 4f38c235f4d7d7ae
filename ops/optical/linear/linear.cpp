// Schemas, checks, composite form and autograd of optical_linear.
#include "ops/optical/linear/linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>

#include <string>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/dense/linear/linear.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace optical_linear_op {

OpticalOperand operand_of(at::TensorList encoded) {
  TORCH_CHECK(encoded.size() == 4,
              "refract::optical_linear: expected weight_encoded to be optical_encode's four "
              "tensors, got ",
              encoded.size());
  return {encoded[0], encoded[1], encoded[2], encoded[3]};
}

void check(const OpticalLinearForwardInputs& in) {
  const char* op = "optical_linear";
  check_floating(op, "x", in.x);
  check_like(op, "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() >= 1 && in.weight.dim() == 2 && in.x.sym_size(-1) == in.weight.sym_size(1),
              "refract::", op, ": expected x [..., K] and weight [N, K], got ", in.x.sym_sizes(),
              " and ", in.weight.sym_sizes());
  if (in.bias.has_value()) {
    check_like(op, "bias", *in.bias, "x", in.x);
    check_vector(op, "bias", *in.bias, in.weight.sym_size(0));
  }
  optical_op::check_splits(op, "weight", in.splits, in.weight.sym_size(0));
  optical_op::check_range(op, "x_range", in.x_range, in.x);
  optical_op::check_ranges(op, "w_ranges", in.w_ranges, in.splits.size(), in.x);
  optical_op::check_ranges(op, "out_ranges", in.out_ranges, in.splits.size(), in.x);
  optical_op::check_settings(op, in.settings, in.splits.size(), in.x);
}

}  // namespace optical_linear_op

namespace composite {
namespace {

// Q(x) in the type that is computed in.
at::Tensor quantized(const at::Tensor& x, const at::Tensor& used, const OpticalSettings& s,
                     double lut_min) {
  return optical_values(optical_levels(x, used, s.levels, {}), used, s.levels, lut_min);
}

}  // namespace

at::Tensor optical_linear_forward(const OpticalLinearForwardInputs& in) {
  optical_linear_op::check(in);
  const OpticalSettings& s = in.settings;
  const OpticalOperand encoded = optical_linear_op::operand_of(in.encoded);
  std::vector<int64_t> sizes = in.x.sizes().vec();
  sizes.back() = in.weight.size(0);
  if (in.x.numel() == 0) return at::empty(sizes, in.x.options());
  const at::Tensor seen = optical_seen(in.x, s.quantiles);
  const at::Tensor x_quantized = quantized(in.x, optical_effective(in.x_range, seen), s, 0);
  std::vector<at::Tensor> outputs;
  int64_t begin = 0;
  for (size_t m = 0; m < in.splits.size(); ++m) {
    const auto member = static_cast<int64_t>(m);
    const at::Tensor w = quantized(in.weight.narrow(0, begin, in.splits[m]),
                                   encoded.used.select(0, member), s, s.lut_min);
    std::optional<at::Tensor> b;
    if (in.bias.has_value()) b = in.bias->narrow(0, begin, in.splits[m]);
    outputs.push_back(optical_output(at::linear(x_quantized, w), b, in.out_ranges[m], s, m));
    if (s.train && in.move_weights) {
      const at::Tensor parts = encoded.seen.select(0, member);
      const at::Tensor limits = at::stack({parts.select(1, 0).amin(), parts.select(1, 1).amax()});
      optical_move_(in.w_ranges[m], in.w_ranges[m], limits, s.smooth);
    }
    begin += in.splits[m];
  }
  if (s.train) optical_move_(in.x_range, in.x_range, seen, s.smooth);
  return at::cat(outputs, -1).to(in.x.scalar_type());
}

}  // namespace composite

namespace {

at::Tensor forward_meta(const OpticalLinearForwardInputs& in) {
  optical_linear_op::operand_of(in.encoded);
  optical_linear_op::check(in);
  auto sizes = in.x.sym_sizes().vec();
  sizes.back() = in.weight.sym_size(0);
  return at::empty_symint(sizes, in.x.options());
}

at::Tensor forward(const OpticalLinearInputs& in, at::TensorList encoded) {
  return optical_linear_forward(in.x, in.weight, encoded, in.bias, in.x_range, in.w_ranges,
                                in.out_ranges, in.splits, in.move_weights, in.settings);
}

// Below autograd; the weight is encoded now where it was not earlier.
at::Tensor linear_plain(const OpticalLinearInputs& in) {
  at::AutoDispatchBelowADInplaceOrView below;
  if (!in.weight_encoded.empty()) return forward(in, in.weight_encoded);
  return forward(in, optical_encode(in.weight, in.w_ranges, in.splits, in.settings).list());
}

struct Linear {
  static at::Tensor forward(AutogradContext* ctx, const OpticalLinearInputs& in) {
    ctx->save_for_backward({in.x, in.weight});
    ctx->saved_data["bias"] = in.bias.has_value();
    return linear_plain(in);
  }
  // The dense layer's.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1),
               need_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    auto [x, weight, bias] =
        linear_backward(grads[0], saved[0], saved[1], need_x, need_weight, need_bias);
    return {need_x ? x : at::Tensor(), need_weight ? weight : at::Tensor(),
            need_bias ? bias : at::Tensor()};
  }
};

at::Tensor linear_autograd(const OpticalLinearInputs& in) {
  if (!any_gradient(in.x, in.weight, in.bias)) return linear_plain(in);
  return Recorded<Linear>::apply(in.x, in.weight, in.bias, in);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, optical_linear,
         std::string("(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) x_range,"
                     " Tensor(b!)[] w_ranges, Tensor(c!)[] out_ranges, int[] splits,"
                     " Tensor[] weight_encoded, bool move_weights=True, ") +
             optical_op::kSettings + ") -> Tensor")
      .composite<linear_autograd>()
      .autograd<linear_autograd>();
  define(m, optical_linear_forward,
         std::string("(Tensor x, Tensor weight, Tensor[] encoded, Tensor? bias,"
                     " Tensor(a!) x_range, Tensor(b!)[] w_ranges, Tensor(c!)[] out_ranges,"
                     " int[] splits, bool move_weights, ") +
             optical_op::kSettings + ") -> Tensor")
      .composite<composite::optical_linear_forward>()
      .meta<forward_meta>();
}

}  // namespace refract
