// One decoder in plain layers with many sets of weights at once: every product is one batched
// product. Shapes: A models, N sequences of T tokens, C hidden_size, V vocabulary.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/layer_plan.h"
#include "model/prefix_tree.h"

namespace refract {

// Why a model's forward pass is not the plain one that BatchedDecoder repeats; empty if it is. An
// extra of its plan that BatchedDecoder does not know is a reason, and so is a parameter that it
// does not read.
std::string why_not_batched(Decoder& model);

// How a model of fp32 is computed.
enum class Products {
  kPlain,
  kSplit,  // products of enough numbers on tensor cores, from operands split in two
           // (ops/many/split.h)
  kHalf    // weights and activations in fp16, sums inside an operation in fp32
};

class BatchedDecoder {
 public:
  // parameters_AS: per model the arena of `model` (its values do not matter), fp32. The weights are
  // copied, the affine part of each layer's normalizations folded into the products behind it, and
  // converted to the type that is computed in. `products` is for fp32.
  BatchedDecoder(Decoder& model, const at::Tensor& parameters_AS,
                 Products products = Products::kPlain);

  struct Loss {
    at::Tensor sum;      // float64 [A]: cross-entropy in nats, summed over all targets
    at::Tensor correct;  // int64 [A]: targets that are the arg max
  };
  // Every model on the same tokens and targets [N, T], int32 or int64. Without gradient.
  Loss loss(const at::Tensor& tokens_NT, const at::Tensor& targets_NT) const;
  // The same of all windows of a tree, each distinct prefix computed once. Without split products.
  Loss loss(const PrefixTree& tree) const;

  int64_t models() const { return models_; }

 private:
  // weight [A, out, in], split [A, out, 3 in]; bias [A, 1, out] or undefined.
  struct Linear {
    at::Tensor weight, bias;
    bool split = false;
  };
  struct Layer {
    const LayerPlan* plan = nullptr;  // the model's
    Linear qkv, output, up, down;
  };

  at::Tensor value(const std::string& name) const;  // [A, ...], undefined where there is none
  Linear linear(const ProjectionSpec& spec) const;  // side by side
  Linear folded(const ProjectionSpec& spec, const NormPlan& norm) const;
  Linear to_compute(Linear linear) const;
  // x as it is, or split already where the layer is.
  static at::Tensor apply(const Linear& linear, const at::Tensor& x, bool gelu = false);
  // stream += branch (where there is one); what the norm makes of it, split for a split consumer.
  at::Tensor normed(const NormPlan& plan, const at::Tensor& branch, at::Tensor& stream,
                    bool split) const;
  at::Tensor final_normed(const at::Tensor& branch, const at::Tensor& stream) const;
  at::Tensor embed(const at::Tensor& tokens_NT) const;  // [A, N * T, C]
  at::Tensor embed(const PrefixTree& tree) const;       // [A, nodes, C]
  // What attention makes of the joint projections [A, rows, (H + 2 K) D]: [A, rows, H D].
  using Mix = std::function<at::Tensor(const Layer& layer, const at::Tensor& qkv)>;
  // Split where the output layer is and the kernel is there.
  at::Tensor mix_windows(const Layer& layer, const at::Tensor& qkv, int64_t length) const;
  at::Tensor mix_prefixes(const Layer& layer, const at::Tensor& qkv, const PrefixTree& tree) const;
  // All layers and the last norm, of embedded rows; split for a split head.
  at::Tensor features(at::Tensor stream, const Mix& mix) const;
  at::Tensor mlp(const Layer& layer, const at::Tensor& x) const;

  Decoder& model_;
  const ModelPlan& plan_;
  at::Tensor parameters_;  // only while the constructor runs
  int64_t models_;
  at::ScalarType dtype_;  // of weights, where they are not split, and activations
  bool split_, split_head_ = false;
  std::vector<Layer> layers_;
  at::Tensor embedding_, positions_, head_;  // [A, Vp, C], [A, Tmax, C], [A, Vp, C or 3 C]
  at::Tensor final_weight_, final_bias_, unit_weight_, zero_bias_;
  at::Tensor cos_, sin_;
};

}  // namespace refract
