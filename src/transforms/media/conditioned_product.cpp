#include "transforms/media/conditioned_product.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "model/backward/remake.h"
#include "transforms/media/hadamard.h"
#include "transforms/media/learned_turn.h"
#include "transforms/media/observer.h"

namespace refract {
namespace {

constexpr float kSmooth = 0.9F;  // as the ranges of the reference move

// max|x| of each input channel, a running one.
class ChannelMaximum {
 public:
  ChannelMaximum(Build build, const LinearSpec& spec, const std::string& method)
      : module_(spec.name),
        buffer_(build.buffers.declare(spec.name + "." + method + "_max",
                                      at::full({spec.in_features}, -1.0F, at::kFloat))) {}

  // For this call. The first micro-batch of a step moves it, before it is used, so that the others
  // find the weight that was made with it.
  at::Tensor of(const ForwardContext& context, const at::Tensor& x) {
    const at::NoGradGuard no_grad;
    if (MediumObserver* observer = medium_observer())
      observer->see_channels(module_, x, buffer_->tensor);
    const at::Tensor& kept = buffer_->tensor;
    if (!context.training && set()) return kept;
    const at::Tensor seen = x.detach().abs().reshape({-1, x.size(-1)}).amax(0).to(at::kFloat);
    if (context.training && context.weights_changed) {
      kept.copy_(at::where(kept.lt(0), seen, kept.mul(kSmooth).add(seen.mul(1 - kSmooth))));
    }
    return at::where(kept.lt(0), seen, kept);
  }

  // Whether evaluations find it set. Asks the device once.
  bool set() {
    known_ = known_ || buffer_->tensor.min().item<float>() >= 0;
    return known_;
  }

 private:
  std::string module_;
  BufferStore::Buffer* buffer_;
  bool known_ = false;
};

// What the medium derived from a weight that depends on the data of the call is not good for the
// next one.
ForwardContext with_new_weight(const ForwardContext& context, ChannelMaximum& largest) {
  ForwardContext changed = context;
  if (!context.training && (medium_observer() || !largest.set())) changed.weights_changed = true;
  return changed;
}

class Smooth : public MediumProduct {
 public:
  Smooth(Build build, const LinearSpec& spec, double alpha, std::unique_ptr<MediumProduct> medium)
      : alpha_(alpha),
        largest_(build, spec, "smooth"),
        medium_(std::move(medium)),
        width_(spec.in_features) {}
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    const at::Tensor of_x = largest_.of(context, x).to(x.scalar_type());
    const at::Tensor of_w = weight.detach().abs().amax(0);
    const at::Tensor s = of_x.pow(alpha_).div(of_w.pow(1 - alpha_));
    const at::Tensor used =
        at::where(of_x.gt(0).logical_and(of_w.gt(0)), s, at::ones({}, s.options()));
    const at::Tensor scaled = x.div(used);
    at::Tensor y = medium_->multiply(with_new_weight(context, largest_), scaled, weight.mul(used));
    free_until_backward(scaled, y, [x = x.detach(), used] { return x.div(used); });
    return y;
  }
  int64_t extra_multiplications() const override {
    return width_ + medium_->extra_multiplications();
  }

 private:
  double alpha_;
  ChannelMaximum largest_;
  std::unique_ptr<MediumProduct> medium_;
  int64_t width_;
};

// A randomized orthogonal transform, and a learned one behind it where there is one.
class Turn {
 public:
  Turn(Build build, const Conditioning& how, int64_t width, const std::string& stream,
       const std::string& parameter)
      : fixed_(width, static_cast<uint64_t>(how.seed), stream) {
    if (how.learned) learned_.emplace(build, parameter, width, turned_block(how, width));
  }
  // Of the call: x's type, recorded by autograd; undefined where nothing is learned.
  at::Tensor matrices(const at::Tensor& like) const {
    return learned_ ? learned_->matrices(like) : at::Tensor();
  }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& matrices) const {
    const at::Tensor y = fixed_.apply(x);
    return matrices.defined() ? LearnedTurn::apply(y, matrices) : y;
  }
  at::Tensor invert(const at::Tensor& y, const at::Tensor& matrices) const {
    return fixed_.invert(matrices.defined() ? LearnedTurn::invert(y, matrices) : y);
  }
  int64_t multiplications() const {
    return fixed_.multiplications() + (learned_ ? learned_->multiplications() : 0);
  }

 private:
  Hadamard fixed_;
  std::optional<LearnedTurn> learned_;
};

class Turned : public MediumProduct {
 public:
  Turned(Build build, const LinearSpec& spec, const Conditioning& how,
         std::unique_ptr<MediumProduct> medium)
      : turn_(build, how, spec.in_features, "hadamard:" + spec.name, spec.name + ".turn"),
        medium_(std::move(medium)) {
    if (how.turn_outputs) {
      turn_outputs_.emplace(build, how, spec.out_features, "hadamard outputs:" + spec.name,
                            spec.name + ".turn_outputs");
    }
  }
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (at::GradMode::is_enabled()) {
      prepare(weight);
      const at::Tensor y = product(context, x);
      turned_ = inputs_ = outputs_ = at::Tensor();
      return y;
    }
    if (context.weights_changed || !turned_.defined()) prepare(weight);
    return product(context, x);
  }
  int64_t extra_multiplications() const override {
    return turn_.multiplications() + (turn_outputs_ ? turn_outputs_->multiplications() : 0) +
           medium_->extra_multiplications();
  }

 private:
  void prepare(const at::Tensor& weight) {
    inputs_ = turn_.matrices(weight);
    turned_ = turn_.apply(weight, inputs_);
    if (!turn_outputs_) return;
    outputs_ = turn_outputs_->matrices(weight);
    turned_ = turn_outputs_->apply(turned_.t(), outputs_).t().contiguous();
  }
  at::Tensor product(const ForwardContext& context, const at::Tensor& x) {
    const at::Tensor y = medium_->multiply(context, turn_.apply(x, inputs_), turned_);
    return turn_outputs_ ? turn_outputs_->invert(y, outputs_) : y;
  }

  Turn turn_;
  std::optional<Turn> turn_outputs_;
  std::unique_ptr<MediumProduct> medium_;
  at::Tensor turned_;            // the weight
  at::Tensor inputs_, outputs_;  // learned rotations, as the weight was turned by them
};

class Split : public MediumProduct {
 public:
  Split(Build build, const LinearSpec& spec, int64_t channels,
        std::unique_ptr<MediumProduct> medium)
      : count_(std::min(spec.in_features,
                        channels > 0 ? channels : std::max<int64_t>(1, spec.in_features / 100))),
        largest_(build, spec, "split"),
        medium_(std::move(medium)),
        outputs_(spec.out_features) {}
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    const at::Tensor largest = largest_.of(context, x);
    const at::Tensor digital = std::get<1>(at::topk(largest, count_));
    const at::Tensor kept = at::ones(largest.sizes(), x.options()).index_fill(0, digital, 0);
    const at::Tensor analog = x.mul(kept);
    const at::Tensor y =
        medium_->multiply(with_new_weight(context, largest_), analog, weight.mul(kept));
    free_until_backward(analog, y, [x = x.detach(), kept] { return x.mul(kept); });
    return y.add(at::linear(x.index_select(-1, digital), weight.index_select(1, digital)));
  }
  int64_t extra_multiplications() const override {
    return count_ * outputs_ + medium_->extra_multiplications();
  }

 private:
  int64_t count_;
  ChannelMaximum largest_;
  std::unique_ptr<MediumProduct> medium_;
  int64_t outputs_;
};

at::Tensor largest_of_rows(const at::Tensor& x) {
  const at::Tensor largest = x.detach().abs().amax(-1, true);
  return at::where(largest.gt(0), largest, at::ones({}, largest.options()));
}

class Scaled : public MediumProduct {
 public:
  Scaled(const LinearSpec& spec, bool tokens, std::unique_ptr<MediumProduct> medium)
      : tokens_(tokens),
        medium_(std::move(medium)),
        extra_(spec.out_features + (tokens ? spec.in_features : 0)) {}
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (tokens_) {
      const at::Tensor s = largest_of_rows(x), scaled = x.div(s);
      const at::Tensor y = medium_->multiply(context, scaled, weight);
      free_until_backward(scaled, y, [x = x.detach(), s] { return x.div(s); });
      return y.mul(s);
    }
    const at::Tensor s = largest_of_rows(weight);
    return medium_->multiply(context, x, weight.div(s)).mul(s.squeeze(-1));
  }
  int64_t extra_multiplications() const override {
    return extra_ + medium_->extra_multiplications();
  }

 private:
  bool tokens_;
  std::unique_ptr<MediumProduct> medium_;
  int64_t extra_;
};

class TurnedAttention : public AttentionCore {
 public:
  TurnedAttention(Build build, const AttentionSpec& spec, const Conditioning& how,
                  std::unique_ptr<AttentionCore> medium)
      : spec_(spec),
        turn_(build, how, spec.head_dim, "hadamard:" + spec.name, spec.name + ".turn"),
        medium_(std::move(medium)) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override {
    const at::Tensor learned = turn_.matrices(q_BTHD);
    const at::Tensor y =
        medium_->forward(context, turn_.apply(q_BTHD, learned), turn_.apply(k_BTKD, learned),
                         turn_.apply(v_BTKD, learned));
    return turn_.invert(y.view({y.size(0), y.size(1), spec_.num_heads, spec_.head_dim}), learned)
        .flatten(2);
  }
  bool follows_lengths() const override { return medium_->follows_lengths(); }
  bool follows_window() const override { return medium_->follows_window(); }

 private:
  AttentionSpec spec_;
  Turn turn_;
  std::unique_ptr<AttentionCore> medium_;
};

}  // namespace

std::unique_ptr<MediumProduct> make_conditioned_product(Build build, const LinearSpec& spec,
                                                        const Conditioning& c,
                                                        std::unique_ptr<MediumProduct> medium) {
  if (c.method == "smooth")
    return std::make_unique<Smooth>(build, spec, c.alpha, std::move(medium));
  if (c.method == "split")
    return std::make_unique<Split>(build, spec, c.channels, std::move(medium));
  if (c.method == "hadamard") return std::make_unique<Turned>(build, spec, c, std::move(medium));
  return std::make_unique<Scaled>(spec, c.method == "per_token", std::move(medium));
}

std::unique_ptr<AttentionCore> make_conditioned_attention(Build build, const AttentionSpec& spec,
                                                          const Conditioning& conditioning,
                                                          std::unique_ptr<AttentionCore> medium) {
  return std::make_unique<TurnedAttention>(build, spec, conditioning, std::move(medium));
}

int64_t turned_block(const Conditioning& conditioning, int64_t width) {
  return conditioning.block > 0 ? std::min(conditioning.block, width) : width;
}

}  // namespace refract
