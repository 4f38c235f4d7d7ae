// Names and layouts: ours (Hugging Face Llama's) against those of each format.
#include "formats/checkpoint_layout.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "core/error.h"
#include "formats/families/families.h"
#include "formats/families/gpt_neox.h"
#include "formats/hf_config.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

// Buffers that old versions of transformers saved and that it computes today: causal masks, and
// rotary frequencies and tables, wherever they stood.
bool is_old_buffer(std::string_view name) {
  const auto is = [&](std::string_view buffer) {
    if (!name.ends_with(buffer)) return false;
    const size_t before = name.size() - buffer.size();
    return before == 0 || name[before - 1] == '.';
  };
  return is("attn.masked_bias") || is("rotary_emb.inv_freq") ||
         is("rotary_emb.original_inv_freq") || is("rotary_emb.cos_cached") ||
         is("rotary_emb.sin_cached");
}

// What a checkpoint can hold under one of our names: a parameter, or a layer's merged weight.
struct Content {
  std::vector<int64_t> shape;
  const Parameter* parameter = nullptr;
  const LinearLayer* layer = nullptr;
};
using Contents = std::map<std::string, Content>;

// All parameters; with `merge` those of each transformed layer give way to its dense weight, and
// only its bias stays; of an attention nothing does.
Contents contents_of(const Decoder& decoder, bool merge) {
  Contents contents;
  for (const Parameter& p : decoder.arena().parameters()) contents[p.name] = {p.shape, &p};
  if (!merge) return contents;
  std::erase_if(contents, [&](const auto& item) { return is_of_attention(decoder, item.first); });
  for (const TransformedLayer& entry : decoder.transformed()) {
    const std::string prefix = entry.spec.name + ".";
    auto item = contents.lower_bound(prefix);
    while (item != contents.end() && item->first.starts_with(prefix))
      item = item->first == prefix + "bias" ? std::next(item) : contents.erase(item);
    contents[prefix + "weight"] = {
        {entry.spec.out_features, entry.spec.in_features}, nullptr, entry.layer};
  }
  return contents;
}

}  // namespace

bool is_of_attention(const Decoder& decoder, const std::string& parameter) {
  const std::string owner = parameter.substr(0, parameter.rfind('.'));
  const auto& layers = decoder.plan().layers;
  return std::any_of(layers.begin(), layers.end(),
                     [&](const LayerPlan& layer) { return layer.attention.name == owner; });
}

std::vector<StoredName> our_names(const std::string& format, const std::string& stored) {
  if (format == "refract") return {{stored}};
  if (is_old_buffer(stored)) return {};
  return family_named(format).names(stored);
}

std::string why_not(const Decoder& decoder, const std::string& format, bool merge) {
  const Family& family = family_named(format);
  if (const std::vector<std::string> lacks = family.against(decoder.config()); !lacks.empty()) {
    const std::string holds = hf_family(decoder.config()).name;
    return fmt::format("{} has no {}{}", family.title, fmt::join(lacks, ", no "),
                       holds.empty() ? "" : "; its settings are those of Hugging Face's " + holds);
  }
  std::set<std::string> present;
  const Contents contents = contents_of(decoder, merge);
  for (const auto& [name, tensor] : contents) present.insert(name);
  for (const StoredTensor& tensor : family.layout(decoder.plan())) {
    for (const std::string& part : tensor.parts) {
      if (present.erase(part) == 0) return fmt::format("it has no dense '{}'", part);
    }
  }
  if (present.empty()) return "";
  return fmt::format(
      "its parameter '{}' has no place there{}", *present.begin(),
      present.size() == 1 ? "" : fmt::format(", nor have {} more", present.size() - 1));
}

std::vector<StoredTensor> checkpoint_layout(const Decoder& decoder, const std::string& format,
                                            bool merge) {
  if (format == "refract") {
    std::vector<StoredTensor> all;
    for (const Parameter& parameter : decoder.arena().parameters())
      all.push_back({parameter.name, {parameter.name}});
    return all;
  }
  std::vector<StoredTensor> all = family_named(format).layout(decoder.plan());
  if (const std::string reason = why_not(decoder, format, merge); !reason.empty()) {
    fail("the model can't be saved in Hugging Face's {} format: {}", format, reason);
  }
  return all;
}

std::vector<TensorSource> checkpoint_tensors(
    const Decoder& decoder, const std::string& format, at::ScalarType dtype,
    const std::function<at::Tensor(const Parameter*)>& read, bool merge) {
  const Contents contents = contents_of(decoder, merge);
  const ModelConfig& config = decoder.config();
  std::vector<TensorSource> sources;
  for (const StoredTensor& tensor : checkpoint_layout(decoder, format, merge)) {
    std::vector<Content> parts;
    for (const std::string& name : tensor.parts) parts.push_back(contents.at(name));
    std::vector<int64_t> shape = parts[0].shape;
    for (size_t i = 1; i < parts.size(); ++i) shape[0] += parts[i].shape[0];
    if (tensor.transposed) std::swap(shape[0], shape[1]);
    const int64_t heads = tensor.by_heads ? config.num_attention_heads : 0;
    auto make = [parts, read, transposed = tensor.transposed, heads,
                 rotary = config.rotary_width()] {
      std::vector<at::Tensor> values;
      for (const Content& part : parts) {
        values.push_back(part.parameter ? read(part.parameter) : part.layer->merged());
      }
      if (heads > 0) return join_heads(values, heads, rotary);
      const at::Tensor whole = values.size() == 1 ? values[0] : at::cat(values);
      return transposed ? whole.t() : whole;
    };
    sources.push_back({tensor.name, dtype, std::move(shape), std::move(make)});
  }
  return sources;
}

}  // namespace refract
