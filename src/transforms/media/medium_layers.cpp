#include "transforms/media/medium_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/softmax.h>

#include <limits>
#include <utility>
#include <vector>

#include "core/error.h"
#include "transforms/layer_group.h"

namespace refract {
namespace {

class MediumProjections : public Projections {
 public:
  MediumProjections(Build build, const ProjectionSpec& spec, const GivesProduct& medium,
                    const std::string& kind)
      : arena_(build.arena),
        activation_(spec.activation),
        product_(medium.product(build, spec.members.front())),
        weights_(declare_weights(build, spec.members)),
        group_(build, spec, kind, [&](size_t m, int64_t /*first*/) {
          const LinearSpec& member = spec.members[m];
          return std::make_unique<MediumLinear>(build, weights_[m], member,
                                                medium.product(build, member));
        }) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return apply_epilogue(product_->multiply(context, x, arena_.joint_leaf(weights_)),
                          group_.bias(), activation_);
  }

 private:
  ParameterArena& arena_;
  Activation activation_;
  std::unique_ptr<MediumProduct> product_;
  std::vector<Parameter*> weights_;
  LayerGroup group_;
};

class MediumAttention : public AttentionCore {
 public:
  MediumAttention(const AttentionSpec& spec, std::unique_ptr<MediumProduct> scores,
                  std::unique_ptr<MediumProduct> values)
      : spec_(spec), scores_(std::move(scores)), values_(std::move(values)) {}

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
    const at::Tensor scores = scores_->multiply(context, q, k).to(at::kFloat);
    const at::Tensor place = at::arange(queries, q.options().dtype(at::kLong)).repeat({shared});
    const at::Tensor own = place.unsqueeze(1) + (keys - queries);  // each query's own key
    const at::Tensor key = at::arange(keys, place.options());
    at::Tensor hidden = key > own;
    if (spec_.window > 0 && keys > spec_.window)
      hidden = hidden.logical_or(key <= own - spec_.window);
    const at::Tensor probabilities = at::softmax(
        scores.mul(spec_.scale).masked_fill(hidden, -std::numeric_limits<float>::infinity()), -1);
    const at::Tensor out = values_->multiply(context, probabilities.to(v.scalar_type()),
                                             v.transpose(2, 3).contiguous());
    return out.view({batch, spec_.num_heads, queries, spec_.head_dim})
        .transpose(1, 2)
        .reshape({batch, queries, spec_.num_heads * spec_.head_dim});
  }
  bool follows_window() const override { return true; }

 private:
  AttentionSpec spec_;
  std::unique_ptr<MediumProduct> scores_, values_;
};

}  // namespace

MediumLinear::MediumLinear(Build build, const LinearSpec& spec,
                           std::unique_ptr<MediumProduct> product)
    : DenseLinear(build, spec),
      dense_multiplications_(spec.in_features * spec.out_features),
      product_(std::move(product)) {}

MediumLinear::MediumLinear(Build build, Parameter* weight, const LinearSpec& spec,
                           std::unique_ptr<MediumProduct> product)
    : DenseLinear(build, weight),
      dense_multiplications_(spec.in_features * spec.out_features),
      product_(std::move(product)) {}

at::Tensor MediumLinear::forward(const ForwardContext& context, const at::Tensor& x) {
  return product_->multiply(context, x, weight());
}

int64_t MediumLinear::multiplications() const {
  const int64_t extra = product_->extra_multiplications();
  return extra > 0 ? dense_multiplications_ + extra : 0;
}

std::unique_ptr<Projections> make_medium_projections(Build build, const ProjectionSpec& spec,
                                                     const GivesProduct& medium,
                                                     const std::string& kind) {
  if (!even_biases(spec)) return nullptr;
  return std::make_unique<MediumProjections>(build, spec, medium, kind);
}

std::unique_ptr<AttentionCore> make_medium_attention(const AttentionSpec& spec,
                                                     std::unique_ptr<MediumProduct> scores,
                                                     std::unique_ptr<MediumProduct> values) {
  if (spec.dropout > 0) {
    fail_usage("'{}': attention in a medium has no dropout; set model.attention_dropout = 0",
               spec.name);
  }
  return std::make_unique<MediumAttention>(spec, std::move(scores), std::move(values));
}

}  // namespace refract
