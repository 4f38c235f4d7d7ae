#include "analysis/model_flops.h"

#include "model/decoder.h"

namespace refract {
namespace {

bool in_ffn(const std::string& name) { return name.find(".mlp.") != std::string::npos; }

// What is left to adapters' training: every element of a matrix multiplies once per token.
void count_frozen(const ParameterArena& arena, DecoderShape& shape) {
  const char* head = shape.tied ? "model.embed_tokens.weight" : "lm_head.weight";
  for (const Parameter& p : arena.parameters()) {
    if (p.trainable || p.shape.size() < 2) continue;
    if (p.name == head) shape.frozen_head = true;
    if (!p.name.starts_with("model.layers.")) continue;
    (in_ffn(p.name) ? shape.ffn_frozen_multiplications : shape.attention_frozen_multiplications) +=
        static_cast<double>(p.numel());
  }
}

}  // namespace

DecoderShape shape_of(const Decoder& decoder, int64_t context) {
  DecoderShape shape = shape_of(decoder.config(), context);
  const auto layers = static_cast<size_t>(shape.num_layers);
  shape.ffn_multiplications.assign(layers, dense_ffn_multiplications(shape));
  shape.attention_multiplications.assign(layers, dense_attention_multiplications(shape));
  for (const TransformedLayer& transformed : decoder.transformed()) {
    const LinearSpec& spec = transformed.spec;
    const bool ffn = in_ffn(spec.name);
    const auto dense = static_cast<double>(spec.in_features * spec.out_features);
    const auto own = static_cast<double>(transformed.layer->multiplications());
    auto& counts = ffn ? shape.ffn_multiplications : shape.attention_multiplications;
    if (own > 0) counts[static_cast<size_t>(spec.layer)] += own - dense;
    (ffn ? shape.ffn_guide_multiplications : shape.attention_guide_multiplications) +=
        static_cast<double>(transformed.layer->guide_multiplications());
  }
  count_frozen(decoder.arena(), shape);
  return shape;
}

}  // namespace refract
