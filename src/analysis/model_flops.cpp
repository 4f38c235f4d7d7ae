#include "analysis/model_flops.h"

#include "model/decoder.h"

namespace refract {

DecoderShape shape_of(const Decoder& decoder, int64_t context) {
  DecoderShape shape = shape_of(decoder.config(), context);
  const auto layers = static_cast<size_t>(shape.num_layers);
  shape.ffn_multiplications.assign(layers, dense_ffn_multiplications(shape));
  shape.attention_multiplications.assign(layers, dense_attention_multiplications(shape));
  for (const TransformedLayer& transformed : decoder.transformed()) {
    const LinearSpec& spec = transformed.spec;
    const bool ffn = spec.name.find(".mlp.") != std::string::npos;
    const auto dense = static_cast<double>(spec.in_features * spec.out_features);
    const auto own = static_cast<double>(transformed.layer->multiplications());
    auto& counts = ffn ? shape.ffn_multiplications : shape.attention_multiplications;
    if (own > 0) counts[static_cast<size_t>(spec.layer)] += own - dense;
    (ffn ? shape.ffn_guide_multiplications : shape.attention_guide_multiplications) +=
        static_cast<double>(transformed.layer->guide_multiplications());
  }
  return shape;
}

}  // namespace refract
