// Schema, checks, composite form and autograd of dropout.
#include "ops/fused/dropout.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/common/philox.h"

namespace refract {

void dropout_op::check(const at::Tensor& x, double p, const at::Tensor& clock) {
  check_floating("dropout", "x", x);
  TORCH_CHECK(p >= 0 && p < 1, "refract::dropout: expected p in [0, 1), got ", p);
  TORCH_CHECK(clock.scalar_type() == at::kLong && clock.dim() == 1 && clock.sym_size(0) == 2,
              "refract::dropout: expected clock to be int64 [2] (step, first element), got ",
              clock.scalar_type(), " ", clock.sym_sizes());
  TORCH_CHECK(clock.device() == x.device(), "refract::dropout: expected clock on ", x.device(),
              " as x, got ", clock.device());
}

namespace composite {
namespace {

constexpr int64_t kMask = 0xffffffff;

at::Tensor low(const at::Tensor& t) { return t.bitwise_and(kMask); }
at::Tensor high(const at::Tensor& t) { return low(t.bitwise_right_shift(32)); }

// The words [blocks, 4] of the blocks, as int64: ops/common/philox.h in tensor arithmetic.
at::Tensor philox_words(PhiloxKey key, const at::Tensor& step, const at::Tensor& block) {
  at::Tensor c0 = low(block), c1 = high(block);
  at::Tensor c2 = low(step).expand_as(c0), c3 = high(step).expand_as(c0);
  int64_t k0 = key.lo, k1 = key.hi;
  for (int round = 0; round < 10; ++round) {
    const at::Tensor p0 = c0.mul(int64_t{0xD2511F53}), p1 = c2.mul(int64_t{0xCD9E8D57});
    c0 = high(p1).bitwise_xor(c1).bitwise_xor(k0);
    c2 = high(p0).bitwise_xor(c3).bitwise_xor(k1);
    c1 = low(p1);
    c3 = low(p0);
    k0 = (k0 + 0x9E3779B9) & kMask;
    k1 = (k1 + 0xBB67AE85) & kMask;
  }
  return at::stack({c0, c1, c2, c3}, -1);
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                   const at::Tensor& clock) {
  dropout_op::check(x, p, clock);
  const int64_t n = x.numel();
  const at::Tensor step = clock.select(0, 0), first = clock.select(0, 1);
  const at::Tensor index = at::arange(n, clock.options()).add(first);
  const at::Tensor first_block = first.bitwise_right_shift(2);
  const at::Tensor blocks = at::arange(n / 4 + 2, clock.options()).add(first_block);
  const at::Tensor words =
      philox_words(philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream)), step,
                   blocks)
          .flatten()
          .index_select(0, index.sub(first_block.mul(4)));
  const at::Tensor uniform = words.bitwise_right_shift(8).to(at::kFloat).mul(1.0f / 16777216.0f);
  const at::Tensor keep = uniform.ge(static_cast<float>(p)).view(x.sizes());
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor scaled = x.contiguous().to(wide).mul(1.0 / (1.0 - p)).to(x.scalar_type());
  return at::where(keep, scaled, at::zeros_like(scaled));
}

}  // namespace composite

at::Tensor dropout(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                   const at::Tensor& clock) {
  static const auto op = find_op<decltype(dropout)>("refract::dropout");
  return op.call(x, p, seed, stream, clock);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double p, int64_t seed,
                            int64_t stream, const at::Tensor& clock) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({clock});
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["stream"] = stream;
    return dropout(x, p, seed, stream, clock);
  }
  // The mask is drawn again: the gradient goes through the same op.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    variable_list out(5);
    out[0] = dropout(grads[0], data.at("p").toDouble(), data.at("seed").toInt(),
                     data.at("stream").toInt(), ctx->get_saved_variables()[0]);
    return out;
  }
};

at::Tensor dropout_autograd(const at::Tensor& x, double p, int64_t seed, int64_t stream,
                            const at::Tensor& clock) {
  if (any_gradient(x)) return Dropout::apply(x, p, seed, stream, clock);
  at::AutoDispatchBelowADInplaceOrView below;
  return dropout(x, p, seed, stream, clock);
}

at::Tensor dropout_meta(const at::Tensor& x, double p, int64_t, int64_t, const at::Tensor& clock) {
  dropout_op::check(x, p, clock);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("dropout(Tensor x, float p, int seed, int stream, Tensor clock) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) { m.impl("dropout", composite::dropout); }

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("dropout", dropout_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("dropout", dropout_meta); }

}  // namespace refract
