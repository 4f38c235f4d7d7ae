#include "transforms/media/quantized_product.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/dense/linear/linear.h"
#include "transforms/media/number_format.h"
#include "transforms/media/observer.h"

namespace refract {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One operand of one product: its format, its random numbers.
struct Rounded {
  const std::optional<NumberFormat>& format;
  bool columns;  // the product sums over its rows
  int64_t seed;
  uint64_t stream;
  const at::Tensor& clock;

  at::Tensor operator()(const at::Tensor& x) const {
    if (!format) return x;
    const MaybeTensor time = clock.defined() ? MaybeTensor(clock) : std::nullopt;
    return number_quantize(x, columns, *format, seed, static_cast<int64_t>(stream), time);
  }
};

// [..., K] x [N, K] as rows, so that the product sums over all of them in the backward pass.
at::Tensor as_rows(const at::Tensor& x, const at::Tensor& second) {
  return second.dim() == 2 ? x.reshape({-1, x.size(-1)}) : x;
}

// Streams of the backward pass are the forward ones' shifted by these.
constexpr uint64_t kGradForFirst = 1, kSecondForFirst = 2, kGradForSecond = 3, kFirstForSecond = 4;

// What a call's backward pass needs beside its operands.
struct Call : torch::CustomClassHolder {
  ProductFormats formats;
  int64_t seed = 0;
  uint64_t first_stream = 0, second_stream = 0;
};

at::Tensor gradient_of_first(const at::Tensor& g, const at::Tensor& second, const Call& call,
                             const at::Tensor& first_clock, const at::Tensor& second_clock) {
  const Rounded round_g{call.formats.grad_for_first, false, call.seed,
                        call.first_stream + kGradForFirst, first_clock};
  const Rounded round_second{call.formats.second_for_first, true, call.seed,
                             call.second_stream + kSecondForFirst, second_clock};
  return at::matmul(round_g(g), round_second(second));
}

at::Tensor gradient_of_second(const at::Tensor& g, const at::Tensor& first,
                              const at::Tensor& second, const Call& call,
                              const at::Tensor& first_clock) {
  const Rounded round_g{call.formats.grad_for_second, true, call.seed,
                        call.first_stream + kGradForSecond, first_clock};
  const Rounded round_first{call.formats.first_for_second, true, call.seed,
                            call.first_stream + kFirstForSecond, first_clock};
  return at::matmul(round_g(as_rows(g, second)).transpose(-1, -2),
                    round_first(as_rows(first, second)));
}

// The operands as they were, and as the product takes them.
struct Operands {
  const at::Tensor &first_used, &second_used, &first_clock, &second_clock;
};

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& first, const at::Tensor& second,
                            const Operands& operands, const c10::intrusive_ptr<Call>& call) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({first, second, operands.first_clock, operands.second_clock});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return dense_product(operands.first_used, operands.second_used);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["call"].toCapsule();
    const Call& call = static_cast<const Call&>(*capsule);
    const at::Tensor &first = saved[0], &second = saved[1];
    const bool need_first = ctx->needs_input_grad(0), need_second = ctx->needs_input_grad(1);
    at::Tensor for_first, for_second;
    if (call.formats.dense_backward() && second.dim() == 2) {
      auto [dx, dw, unused] =
          linear_backward(grads[0], first, second, need_first, need_second, false);
      if (need_first) for_first = dx;
      if (need_second) for_second = dw;
    } else {
      if (need_first) for_first = gradient_of_first(grads[0], second, call, saved[2], saved[3]);
      if (need_second) for_second = gradient_of_second(grads[0], first, second, call, saved[2]);
    }
    return {for_first, for_second, at::Tensor(), at::Tensor()};
  }
};

constexpr int kStochastic = 3, kNvfp4 = 2;  // of NumberFormat's rounding and scaling

bool any_stochastic(const ProductFormats& f) {
  for (const auto* one : {&f.first, &f.second, &f.grad_for_first, &f.second_for_first,
                          &f.grad_for_second, &f.first_for_second}) {
    if (*one && (*one)->rounding == kStochastic) return true;
  }
  return false;
}

}  // namespace

at::Tensor QuantizedProduct::multiply(const ForwardContext& context, const at::Tensor& first,
                                      const at::Tensor& second) {
  if (medium_observer()) return dense_product(first, second);
  const auto call = c10::make_intrusive<Call>();
  call->formats = formats_;
  call->seed = static_cast<int64_t>(context.seed);
  call->first_stream = site_.first_stream;
  call->second_stream = site_.second_stream;
  at::Tensor first_clock, second_clock;
  if (any_stochastic(formats_)) {
    first_clock = activation_clock(context, first);
    second_clock = site_.weight ? weight_clock(context, second) : activation_clock(context, second);
  }
  at::Tensor first_used, second_used = prepared_;
  {
    const at::NoGradGuard no_grad;
    first_used =
        Rounded{formats_.first, false, call->seed, call->first_stream, first_clock}(first.detach());
    // A weight is rounded once per optimizer step, not once per micro-batch.
    if (!site_.weight || context.weights_changed || !second_used.defined()) {
      second_used = Rounded{formats_.second, false, call->seed, call->second_stream,
                            second_clock}(second.detach());
      if (site_.weight) prepared_ = second_used;
    }
  }
  return Product::apply(first, second, Operands{first_used, second_used, first_clock, second_clock},
                        call);
}

double operand_bits(const std::optional<NumberFormat>& format) {
  constexpr double kUnquantized = 16;
  if (!format) return kUnquantized;
  return static_cast<double>(1 + format->exponent_bits + format->mantissa_bits +
                             (format->exponent_bits == 0 ? 1 : 0));
}

Energy quantized_energy(const ProductShape& product, const ProductFormats& formats,
                        const EnergyConstants& constants) {
  return {digital_energy(product.multiplications, operand_bits(formats.first),
                         operand_bits(formats.second), constants),
          0};
}

bool ProductFormats::joins_second() const {
  const auto whole = [](const std::optional<NumberFormat>& f) {
    return f && (f->block == -1 || f->scaling == kNvfp4);
  };
  return !whole(second) && !whole(second_for_first);
}

void FormatNames::describe(Fields& fields) {
  const std::vector<std::string> roundings = {"even", "away", "zero", "stochastic"};
  fields.add("format", format, "of both operands: e4m3, e5m2, e2m1, ...");
  fields.add("x_format", x_format, "of the input; same: as format; none: left alone");
  fields.add("w_format", w_format, "of the weight, likewise");
  fields.add("grad_format", grad_format, "of the output's gradient in both backward products");
  fields.add("backward_x_format", backward_x_format, "of the input in the weight's gradient");
  fields.add("backward_w_format", backward_w_format, "of the weight in the input's gradient");
  fields.add("rounding", rounding, "of forward operands; zero: toward zero", roundings);
  fields.add("backward_rounding", backward_rounding, "of backward operands", roundings);
}

std::optional<NumberFormat> FormatNames::named(const std::string& name,
                                               const std::string& rounding_name,
                                               const std::string& where) const {
  const std::string& chosen = name == "same" ? format : name;
  auto f = number_format(knows_nvfp4 && chosen == "nvfp4" ? "e2m1" : chosen, where);
  if (f) f->rounding = rounding_mode(rounding_name);
  return f;
}

}  // namespace refract
