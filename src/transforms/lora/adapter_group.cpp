#include "transforms/lora/adapter_group.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "core/random.h"
#include "model/backward/remake.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

bool may_write(const at::Tensor& y) { return !y.is_view() && y.is_contiguous(); }

// y + (x A^T) spread^T.
at::Tensor added(const at::Tensor& y, const at::Tensor& inner, const at::Tensor& spread,
                 bool in_place) {
  if (in_place) {
    y.view({-1, y.size(-1)}).addmm_(inner, spread.t());
    return y;
  }
  return at::addmm(rows_of(y), inner, spread.t()).view(y.sizes());
}

// The blocks on the diagonal of [sum of splits, M r], below each other and scaled: [.., r].
at::Tensor diagonal_blocks(const at::Tensor& whole, at::IntArrayRef splits, double scale) {
  const int64_t r = whole.size(1) / static_cast<int64_t>(splits.size());
  std::vector<at::Tensor> blocks;
  int64_t begin = 0;
  for (size_t m = 0; m < splits.size(); ++m) {
    blocks.push_back(whole.narrow(0, begin, splits[m]).narrow(1, static_cast<int64_t>(m) * r, r));
    begin += splits[m];
  }
  // One launch for all of them, and none where there is one layer and no scale: a step has dozens.
  const at::Tensor joined = blocks.size() == 1 ? whole : at::cat(blocks);
  return scale == 1 ? joined : joined.mul(scale);
}

// What x gets of the frozen weight and of the adapters: grad (W + spread a). One product with their
// sum is less work than two, unless there are few rows.
at::Tensor gradient_of_input(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& spread, const at::Tensor& a,
                             const at::Tensor& grad_inner) {
  const auto through = [&](const at::Tensor& w) {
    return std::get<0>(linear_backward(grad, x, w, true, false, false));
  };
  if (grad.size(0) > weight.size(0)) return through(at::addmm(weight, spread, a));
  return through(weight).addmm_(grad_inner, a);
}

// What autograd records of adapters: y's gradient passes, A and B get theirs. With `beside` the
// adapters' product is added here, and x gets its part; else it is in y already. With a weight,
// that of frozen layers which made y without being recorded, x gets their part too and y nothing.
struct Adapters : torch::autograd::Function<Adapters> {
  // b: only for its gradient; its values are in spread.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& y, const at::Tensor& x,
                            const at::Tensor& a, const at::Tensor& /*b*/, const at::Tensor& spread,
                            const std::optional<at::Tensor>& weight,
                            const std::vector<int64_t>& splits, double scale, bool beside,
                            bool in_place) {
    at::Tensor inner;  // merged, it is made in the backward pass
    if (beside) inner = at::mm(rows_of(x), a.t());
    ctx->save_for_backward({x, a, spread, inner, weight.value_or(at::Tensor())});
    ctx->saved_data["splits"] = splits;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["beside"] = beside;
    if (!beside) return y;
    if (in_place) ctx->mark_dirty({y});
    return added(y, inner, spread, in_place);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &a = saved[1], &spread = saved[2], &weight = saved[4];
    const at::Tensor grad = rows_of(grads[0]), x_rows = rows_of(x);
    const at::Tensor grad_inner = at::mm(grad, spread);  // [rows, M r]
    variable_list out(10);
    if (ctx->needs_input_grad(0)) out[0] = grads[0];
    if (ctx->saved_data["beside"].toBool() && ctx->needs_input_grad(1)) {
      const at::Tensor part = weight.defined()
                                  ? gradient_of_input(grad, x_rows, weight, spread, a, grad_inner)
                                  : at::mm(grad_inner, a);
      out[1] = part.view(x.sizes());
    }
    if (ctx->needs_input_grad(2)) out[2] = at::mm(grad_inner.t(), x_rows);
    if (ctx->needs_input_grad(3)) {
      const at::Tensor inner = saved[3].defined() ? saved[3] : at::mm(x_rows, a.t());
      out[3] = diagonal_blocks(at::mm(grad.t(), inner), ctx->saved_data["splits"].toIntVector(),
                               ctx->saved_data["scale"].toDouble());
    }
    return out;
  }
};

// What autograd records of a merged weight, whose gradient is that of A and B.
struct MergedWeight : torch::autograd::Function<MergedWeight> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& a,
                            const at::Tensor& /*b*/, const at::Tensor& spread,
                            const std::vector<int64_t>& splits, double scale) {
    ctx->save_for_backward({a, spread});
    ctx->saved_data["splits"] = splits;
    ctx->saved_data["scale"] = scale;
    return weight;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &a = saved[0], &spread = saved[1], &grad = grads[0];
    variable_list out(6);
    if (ctx->needs_input_grad(1)) out[1] = at::mm(spread.t(), grad);
    if (ctx->needs_input_grad(2)) {
      out[2] = diagonal_blocks(at::mm(grad, a.t()), ctx->saved_data["splits"].toIntVector(),
                               ctx->saved_data["scale"].toDouble());
    }
    return out;
  }
};

// [sum of splits, M, 1]: the scale where a row is the member's, else 0. In fp32 at least, so that
// the scale isn't rounded.
at::Tensor places_of(const std::vector<int64_t>& splits, double scale, const at::Tensor& b) {
  const auto members = static_cast<int64_t>(splits.size());
  const auto type = b.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor places = at::zeros({b.size(0), members, 1}, b.options().dtype(type));
  int64_t begin = 0;
  for (int64_t m = 0; m < members; ++m) {
    const int64_t rows = splits[static_cast<size_t>(m)];
    places.narrow(0, begin, rows).select(1, m).fill_(scale);
    begin += rows;
  }
  return places;
}

// Uniform within +-bound, from the stream that a normal start would draw from.
at::Tensor draw_uniform(at::IntArrayRef shape, uint64_t seed, const std::string& name,
                        double bound) {
  at::Tensor drawn = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  auto* out = drawn.mutable_data_ptr<float>();
  const PhiloxKey key = philox_key(seed, stream_id("init:" + name));
  for (int64_t i = 0; i < drawn.numel(); ++i) {
    const double u = (philox_word(key, 0, static_cast<uint64_t>(i)) + 0.5) * 0x1p-32;
    out[i] = static_cast<float>(bound * (2 * u - 1));
  }
  return drawn;
}

}  // namespace

AdapterGroup::AdapterGroup(Build build, const std::vector<LinearSpec>& members,
                           const LoraSettings& settings)
    : settings_(settings), members_(members), arena_(build.arena) {
  std::vector<ParameterSpec> a, b;
  for (const LinearSpec& member : members) {
    a.push_back({member.name + ".lora_A.weight",
                 {settings.r, member.in_features},
                 Init::zeros(),  // initialize() draws it
                 true,
                 true});
    b.push_back({member.name + ".lora_B.weight",
                 {member.out_features, settings.r},
                 Init::zeros(),
                 true,
                 true});
    splits_.push_back(member.out_features);
  }
  a_ = arena_.declare_group(a);
  b_ = arena_.declare_group(b);
}

void AdapterGroup::refresh_spread(const ForwardContext& context) {
  if (spread_.defined() && !context.weights_changed) return;
  const at::NoGradGuard no_grad;
  const at::Tensor b = arena_.joint_leaf(b_).detach();
  if (splits_.size() == 1) {
    spread_ = settings_.scale() == 1 ? b : b.mul(settings_.scale());
    return;
  }
  if (!places_.defined()) places_ = places_of(splits_, settings_.scale(), b);
  const int64_t rows = b.size(0), members = places_.size(1);
  spread_ = at::empty({rows, members * settings_.r}, b.options());
  at::Tensor blocks = spread_.view({rows, members, settings_.r});
  at::mul_out(blocks, b.unsqueeze(1), places_);  // one launch: a step has dozens of groups
}

at::Tensor AdapterGroup::add(const ForwardContext& context, const at::Tensor& y,
                             const at::Tensor& x, bool in_place) {
  refresh_spread(context);
  const bool writable = in_place && may_write(y);
  const auto apply = [&](const at::Tensor& input) {
    return Adapters::apply(y, input, arena_.joint_leaf(a_), arena_.joint_leaf(b_), spread_,
                           std::nullopt, splits_, settings_.scale(), /*beside=*/true, writable);
  };
  if (!drops(context)) return apply(x);
  const auto drop = [p = settings_.dropout, seed = static_cast<int64_t>(context.seed),
                     stream = static_cast<int64_t>(stream_id("lora:" + members_[0].name)),
                     clock = element_clock(context, x)](const at::Tensor& input) {
    return dropout(input, p, seed, stream, clock);
  };
  const at::Tensor dropped = drop(x);
  at::Tensor out = apply(dropped);
  free_until_backward(dropped, out, [drop, x = x.detach()] { return drop(x); });
  return out;
}

at::Tensor AdapterGroup::add_to_unrecorded(const ForwardContext& context, const at::Tensor& y,
                                           const at::Tensor& x, const at::Tensor& weight) {
  refresh_spread(context);
  return Adapters::apply(y, x, arena_.joint_leaf(a_), arena_.joint_leaf(b_), spread_,
                         std::optional(weight.detach()), splits_, settings_.scale(),
                         /*beside=*/true, may_write(y));
}

at::Tensor AdapterGroup::merge(const ForwardContext& context, const at::Tensor& weight) {
  if (merged_.defined() && !context.weights_changed) return merged_;
  refresh_spread(context);
  const at::NoGradGuard no_grad;
  merged_ = at::addmm(weight.detach(), spread_, arena_.joint_leaf(a_).detach());
  return merged_;
}

at::Tensor AdapterGroup::merge_recorded(const ForwardContext& context, const at::Tensor& weight) {
  at::Tensor merged = merge(context, weight);
  if (!at::GradMode::is_enabled()) return merged;
  return MergedWeight::apply(merged, arena_.joint_leaf(a_), arena_.joint_leaf(b_), spread_, splits_,
                             settings_.scale());
}

at::Tensor AdapterGroup::attach(const at::Tensor& y, const at::Tensor& x) {
  if (!at::GradMode::is_enabled()) return y;
  return Adapters::apply(y, x, arena_.joint_leaf(a_), arena_.joint_leaf(b_), spread_, std::nullopt,
                         splits_, settings_.scale(), /*beside=*/false, /*in_place=*/false);
}

void AdapterGroup::initialize(size_t member, uint64_t seed) {
  const Parameter* a = a_[member];
  const double bound = 1 / std::sqrt(static_cast<double>(members_[member].in_features));
  arena_.value(a).copy_(draw_uniform(a->shape, seed, a->name, bound));
}

at::Tensor AdapterGroup::delta(size_t member) const {
  // Either may be frozen (train.only), and so kept in the compute type.
  const at::ScalarType wide = arena_.master().scalar_type();
  return at::matmul(arena_.value(b_[member]).to(wide), arena_.value(a_[member]).to(wide))
      .mul(settings_.scale());
}

int64_t AdapterGroup::multiplications(size_t member) const {
  return settings_.r * (members_[member].in_features + members_[member].out_features);
}

}  // namespace refract
