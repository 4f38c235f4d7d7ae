// The ordinary layers: one GEMM per group of dense linear layers, and scaled_dot_product_attention.
#pragma once
#include <memory>
#include <vector>

#include "model/attention/documents.h"
#include "model/slots.h"

namespace refract {

// Declares the weight of one linear layer, "<name>.weight" [out_features, in_features].
ParameterSpec weight_spec(const LinearSpec& spec);
ParameterSpec bias_spec(const LinearSpec& spec);

// A linear layer with an ordinary weight. Kinds that only compute differently derive from it.
class DenseLinear : public LinearLayer {
 public:
  DenseLinear(Build build, const LinearSpec& spec);
  // Over a weight that its group declared.
  DenseLinear(Build build, Parameter* weight) : weight_(weight), arena_(build.arena) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;
  double take_over(const at::Tensor& weight) override;
  at::Tensor merged() const override;
  bool computes_merged() const override { return true; }

 protected:
  // The weight as autograd sees it, [out_features, in_features] in compute dtype.
  at::Tensor weight() const { return arena_.leaf(weight_); }
  Parameter* weight_;
  ParameterArena& arena_;
};

// All members dense: one GEMM over their adjacent weights.
class DenseProjections : public Projections {
 public:
  DenseProjections(Build build, const ProjectionSpec& spec);
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;

 private:
  at::Tensor joint(at::Tensor& kept, const std::vector<Parameter*>& parameters);
  std::vector<Parameter*> weights_, biases_;
  Activation activation_;
  ParameterArena& arena_;
  at::Tensor weight_, bias_;  // joint leaves, made at the first forward pass where they are leaves
};

class SdpaAttention : public AttentionCore {
 public:
  explicit SdpaAttention(const AttentionSpec& spec) : spec_(spec) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override;
  bool follows_lengths() const override { return true; }
  bool follows_window() const override { return true; }
  at::Tensor forward_joint(const ForwardContext& context, const AttentionSpec& spec,
                           const at::Tensor& qkv) override;
  // The same for windows of several documents, none of which sees another.
  at::Tensor forward_documents(const ForwardContext& context, const at::Tensor& qkv,
                               const Documents& documents);

 private:
  // q [B, H, T, D] over k, v [B, K, S, D] -> [B, T, H D]. `seen`: the mask over [.., T, S];
  // undefined: all keys, or with `causal` those up to each query.
  at::Tensor attend(const ForwardContext& context, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const at::Tensor& seen, bool causal) const;
  // One token per sequence over the places of the cache, see KvCache::lengths.
  at::Tensor decode(const at::Tensor& q_BTHD, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& lengths) const;
  bool outgrows_window(int64_t keys) const { return spec_.window > 0 && keys > spec_.window; }

  AttentionSpec spec_;
};

class DenseFactory : public LayerFactory {
 public:
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override;
};

}  // namespace refract
