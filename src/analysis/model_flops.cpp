#include "analysis/model_flops.h"

#include <algorithm>

#include "model/decoder.h"
#include "model/layer_plan.h"
#include "transforms/lora/adapter_group.h"

namespace refract {
namespace {

bool in_ffn(const LayerPlan& layer, const std::string& name) {
  return name.starts_with(layer.mlp + ".");
}

// The layers below the lowest one that has something to train. 0 where the embeddings are trained.
int64_t forward_only_layers(const Decoder& decoder) {
  const ModelPlan& plan = decoder.plan();
  auto lowest = static_cast<int64_t>(plan.layers.size());
  for (const Parameter& p : decoder.arena().parameters()) {
    if (!p.trainable) continue;
    if (p.name == plan.tokens.name || (plan.positions && p.name == plan.positions->name)) return 0;
    for (int64_t i = 0; i < lowest; ++i) {
      if (p.name.starts_with(plan.layers[static_cast<size_t>(i)].name + ".")) lowest = i;
    }
  }
  return lowest;
}

// What is left to the training of a part: every element of a matrix multiplies once per token.
void count_frozen(const Decoder& decoder, DecoderShape& shape) {
  const ModelPlan& plan = decoder.plan();
  shape.nothing_trained = decoder.arena().trainable_count() == 0;
  shape.forward_only_layers = forward_only_layers(decoder);
  for (const Parameter& p : decoder.arena().parameters()) {
    if (p.trainable || p.shape.size() < 2) continue;
    if (p.name == head_of(plan).name) shape.frozen_head = true;
    const auto layer = std::ranges::find_if(plan.layers, [&](const LayerPlan& candidate) {
      return p.name.starts_with(candidate.name + ".");
    });
    if (layer == plan.layers.end()) continue;
    const bool ffn = in_ffn(*layer, p.name);
    const auto count = static_cast<double>(p.numel());
    (ffn ? shape.ffn_frozen_multiplications : shape.attention_frozen_multiplications) += count;
    if (layer - plan.layers.begin() >= shape.forward_only_layers) continue;
    (ffn ? shape.ffn_forward_only_multiplications : shape.attention_forward_only_multiplications) +=
        count;
  }
}

}  // namespace

DecoderShape shape_of(const Decoder& decoder, int64_t context) {
  DecoderShape shape = shape_of(decoder.config(), context);
  for (const LayerPlan& layer : decoder.plan().layers) {
    shape.ffn_multiplications.push_back(ffn_multiplications_of(layer));
    shape.attention_multiplications.push_back(attention_multiplications_of(layer));
  }
  for (const TransformedLayer& transformed : decoder.transformed()) {
    const LinearSpec& spec = transformed.spec;
    const auto index = static_cast<size_t>(spec.layer);
    const bool ffn = in_ffn(decoder.plan().layers[index], spec.name);
    const auto dense = static_cast<double>(spec.in_features * spec.out_features);
    const auto own = static_cast<double>(transformed.layer->multiplications());
    auto& counts = ffn ? shape.ffn_multiplications : shape.attention_multiplications;
    if (own > 0) counts[index] += own - dense;
    // A merged adapter multiplies in the backward pass alone, where its frozen weight doesn't.
    if (const auto* merged = dynamic_cast<const MergedAdapterLayer*>(transformed.layer)) {
      (ffn ? shape.ffn_frozen_multiplications : shape.attention_frozen_multiplications) -=
          static_cast<double>(merged->adapter_gradient_multiplications());
    }
    (ffn ? shape.ffn_guide_multiplications : shape.attention_guide_multiplications) +=
        static_cast<double>(transformed.layer->guide_multiplications());
  }
  count_frozen(decoder, shape);
  return shape;
}

}  // namespace refract
