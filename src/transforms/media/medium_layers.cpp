#include "transforms/media/medium_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/softmax.h>

#include <limits>
#include <utility>
#include <vector>

#include "core/error.h"
#include "model/dense.h"
#include "transforms/kind.h"

namespace refract {
namespace {

class MediumLinear : public DenseLinear {
 public:
  MediumLinear(Build build, const LinearSpec& spec, SharedMedium medium)
      : DenseLinear(build, spec), medium_(std::move(medium)), site_(spec.name, true) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return medium_->multiply(context, x, weight(), site_);
  }
  bool computes_merged() const override { return false; }

 private:
  SharedMedium medium_;
  ProductSite site_;
};

// A member of a group, seen alone.
class MediumMember : public LinearLayer {
 public:
  MediumMember(ParameterArena& arena, Parameter* weight, const std::string& name,
               SharedMedium medium)
      : arena_(arena), weight_(weight), medium_(std::move(medium)), site_(name, true) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return medium_->multiply(context, x, arena_.leaf(weight_), site_);
  }
  double take_over(const at::Tensor& weight) override {
    arena_.value(weight_).copy_(weight);
    return 0;
  }
  at::Tensor merged() const override { return arena_.value(weight_); }

 private:
  ParameterArena& arena_;
  Parameter* weight_;
  SharedMedium medium_;
  ProductSite site_;
};

class MediumProjections : public Projections {
 public:
  MediumProjections(Build build, const ProjectionSpec& spec, SharedMedium medium,
                    const std::string& kind)
      : arena_(build.arena),
        activation_(spec.activation),
        medium_(std::move(medium)),
        site_(spec.members.front().name, true) {
    std::vector<ParameterSpec> weights, biases;
    for (const LinearSpec& member : spec.members) {
      weights.push_back(weight_spec(member));
      if (member.bias) biases.push_back(bias_spec(member));
    }
    weights_ = arena_.declare_group(weights);
    for (size_t i = 0; i < spec.members.size(); ++i) {
      const LinearSpec& member = spec.members[i];
      members_.push_back(std::make_unique<MediumMember>(arena_, weights_[i], member.name, medium_));
      enter(build, member, kind, members_.back().get());
    }
    biases_ = arena_.declare_group(biases);
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor bias = biases_.empty() ? at::Tensor() : arena_.joint_leaf(biases_);
    return apply_epilogue(medium_->multiply(context, x, arena_.joint_leaf(weights_), site_), bias,
                          activation_);
  }

 private:
  ParameterArena& arena_;
  Activation activation_;
  SharedMedium medium_;
  ProductSite site_;
  std::vector<Parameter*> weights_, biases_;
  std::vector<std::unique_ptr<MediumMember>> members_;
};

class MediumAttention : public AttentionCore {
 public:
  MediumAttention(const AttentionSpec& spec, SharedMedium medium)
      : spec_(spec),
        medium_(std::move(medium)),
        scores_(spec.name + ".qk", false),
        values_(spec.name + ".av", false) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override {
    at::Tensor k = k_BTKD.transpose(1, 2), v = v_BTKD.transpose(1, 2);
    if (context.cache)
      std::tie(k, v) = append_to_cache(*context.cache, spec_.layer, k_BTKD, v_BTKD);
    const int64_t batch = q_BTHD.size(0), queries = q_BTHD.size(1), keys = k.size(2);
    const int64_t shared = spec_.num_heads / spec_.num_kv_heads;
    // The query heads of one key head below one another: [B, K, shared * T, D].
    const at::Tensor q = q_BTHD.transpose(1, 2).reshape(
        {batch, spec_.num_kv_heads, shared * queries, spec_.head_dim});
    const at::Tensor scores = medium_->multiply(context, q, k, scores_).to(at::kFloat);
    const at::Tensor place = at::arange(queries, q.options().dtype(at::kLong)).repeat({shared});
    const at::Tensor hidden =
        at::arange(keys, place.options()) > place.unsqueeze(1) + (keys - queries);
    const at::Tensor probabilities = at::softmax(
        scores.mul(spec_.scale).masked_fill(hidden, -std::numeric_limits<float>::infinity()), -1);
    const at::Tensor out = medium_->multiply(context, probabilities.to(v.scalar_type()),
                                             v.transpose(2, 3).contiguous(), values_);
    return out.view({batch, spec_.num_heads, queries, spec_.head_dim})
        .transpose(1, 2)
        .reshape({batch, queries, spec_.num_heads * spec_.head_dim});
  }

 private:
  AttentionSpec spec_;
  SharedMedium medium_;
  ProductSite scores_, values_;
};

}  // namespace

std::unique_ptr<LinearLayer> make_medium_linear(Build build, const LinearSpec& spec,
                                                SharedMedium medium) {
  return std::make_unique<MediumLinear>(build, spec, std::move(medium));
}

std::unique_ptr<Projections> make_medium_projections(Build build, const ProjectionSpec& spec,
                                                     SharedMedium medium, const std::string& kind) {
  size_t biases = 0;
  for (const LinearSpec& member : spec.members) biases += member.bias ? 1 : 0;
  const bool even = biases == 0 || biases == spec.members.size();
  if (!even || !medium->joins_weights()) return nullptr;
  return std::make_unique<MediumProjections>(build, spec, std::move(medium), kind);
}

std::unique_ptr<AttentionCore> make_medium_attention(const AttentionSpec& spec,
                                                     SharedMedium medium) {
  if (spec.dropout > 0) {
    fail_usage("'{}': attention in a medium has no dropout; set model.attention_dropout = 0",
               spec.name);
  }
  return std::make_unique<MediumAttention>(spec, std::move(medium));
}

}  // namespace refract
