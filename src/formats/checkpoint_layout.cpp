// Names and layouts: ours (Hugging Face Llama's) against those of each format.
#include "formats/checkpoint_layout.h"

#include <ATen/ops/cat.h>

#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "core/error.h"
#include "formats/families/gpt_neox.h"
#include "formats/hf_config.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

// Suffixes behind "model.layers.N." and GPT-2's behind "h.N."; Conv1D weights are stored [in, out].
struct LayerName {
  const char *ours, *gpt2;
  bool conv1d;
};
constexpr LayerName kLayerNames[] = {
    {"input_layernorm", "ln_1", false},          {"self_attn.o_proj", "attn.c_proj", true},
    {"post_attention_layernorm", "ln_2", false}, {"mlp.up_proj", "mlp.c_fc", true},
    {"mlp.down_proj", "mlp.c_proj", true},
};

std::vector<StoredTensor> gpt2_layout(const ModelPlan& plan) {
  std::vector<StoredTensor> all = {{"transformer.wte.weight", {plan.tokens.name}},
                                   {"transformer.wpe.weight", {"model.embed_positions.weight"}}};
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const std::string theirs = fmt::format("transformer.h.{}.", i);
    for (const char* kind : {"weight", "bias"}) {
      StoredTensor fused{theirs + "attn.c_attn." + kind, {}, kind == std::string("weight")};
      for (const LinearSpec& member : layer.qkv.members)
        fused.parts.push_back(fmt::format("{}.{}", member.name, kind));
      all.push_back(fused);
      for (const LayerName& name : kLayerNames) {
        all.push_back({fmt::format("{}{}.{}", theirs, name.gpt2, kind),
                       {fmt::format("{}.{}.{}", layer.name, name.ours, kind)},
                       name.conv1d && fused.transposed});
      }
    }
  }
  for (const char* kind : {"weight", "bias"})
    all.push_back({fmt::format("transformer.ln_f.{}", kind),
                   {fmt::format("{}.{}", plan.final_norm.name, kind)}});
  if (plan.head) all.push_back({plan.head->name, {plan.head->name}});
  return all;
}

// Our names are Llama's.
std::vector<StoredTensor> llama_layout(const ModelPlan& plan) {
  std::vector<std::string> names = {plan.tokens.name};
  const auto add_linear = [&](const ProjectionSpec& group) {
    for (const LinearSpec& member : group.members) {
      names.push_back(member.name + ".weight");
      if (member.bias) names.push_back(member.name + ".bias");
    }
  };
  for (const LayerPlan& layer : plan.layers) {
    names.push_back(layer.input_norm.name + ".weight");
    add_linear(layer.qkv);
    add_linear(layer.output);
    names.push_back(layer.post_attention_norm.name + ".weight");
    add_linear(layer.up);
    add_linear(layer.down);
  }
  names.push_back(plan.final_norm.name + ".weight");
  if (plan.head) names.push_back(plan.head->name);
  std::vector<StoredTensor> all;
  for (const std::string& name : names) all.push_back({name, {name}});
  return all;
}

std::vector<StoredTensor> hf_layout(const Decoder& decoder, const std::string& format) {
  if (format == "gpt2") return gpt2_layout(decoder.plan());
  if (format == "llama") return llama_layout(decoder.plan());
  if (format == "gpt_neox") return gpt_neox_layout(decoder.plan());
  fail_usage(
      "a model can't be saved as \"{}\"; the formats are auto, gpt2, llama, gpt_neox, refract",
      format);
}

// "h.12.attn.c_proj.weight" -> {12, "attn.c_proj.weight"}; nothing where the name does not start
// so.
std::optional<std::pair<std::string, std::string>> split_layer(std::string_view name,
                                                               std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return std::nullopt;
  return std::pair(std::string(name.substr(0, digits)), std::string(name.substr(digits + 1)));
}

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

std::vector<StoredName> gpt2_names(std::string name) {
  if (name.starts_with("transformer.")) name.erase(0, std::string("transformer.").size());
  if (name == "wte.weight") return {{"model.embed_tokens.weight"}};
  if (name == "wpe.weight") return {{"model.embed_positions.weight"}};
  if (name == "ln_f.weight" || name == "ln_f.bias") return {{"model.norm" + name.substr(4)}};
  const auto layer = split_layer(name, "h.");
  if (!layer) return {{name}};
  const auto& [index, rest] = *layer;
  if (rest == "attn.bias") return {};  // the causal mask of old files
  const size_t dot = rest.rfind('.');
  const std::string module = rest.substr(0, dot),
                    kind = dot == std::string::npos ? "" : rest.substr(dot + 1);
  const std::string ours = "model.layers." + index + ".";
  if (kind != "weight" && kind != "bias") return {{name}};
  if (module == "attn.c_attn") {
    std::vector<StoredName> parts;
    for (int64_t i = 0; i < 3; ++i) {
      parts.push_back(
          {fmt::format("{}self_attn.{}_proj.{}", ours, "qkv"[i], kind), kind == "weight", i, 3});
    }
    return parts;
  }
  for (const LayerName& known : kLayerNames) {
    if (module == known.gpt2)
      return {{ours + known.ours + "." + kind, known.conv1d && kind == "weight"}};
  }
  return {{name}};
}

std::vector<StoredName> llama_names(const std::string& name) {
  const bool bare =
      name.starts_with("layers.") || name == "embed_tokens.weight" || name == "norm.weight";
  return {{bare ? "model." + name : name}};  // a LlamaModel without its head has no prefix
}

// What a checkpoint can hold under one of our names: a parameter, or a layer's merged weight.
struct Content {
  std::vector<int64_t> shape;
  const Parameter* parameter = nullptr;
  const LinearLayer* layer = nullptr;
};
using Contents = std::map<std::string, Content>;

// All parameters; with `merge` those of each transformed layer give way to its dense weight, and
// only its bias stays.
Contents contents_of(const Decoder& decoder, bool merge) {
  Contents contents;
  for (const Parameter& p : decoder.arena().parameters()) contents[p.name] = {p.shape, &p};
  if (!merge) return contents;
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

std::vector<StoredName> our_names(const std::string& format, const std::string& stored) {
  if (format == "refract") return {{stored}};
  if (is_old_buffer(stored)) return {};
  if (format == "gpt2") return gpt2_names(stored);
  return format == "gpt_neox" ? gpt_neox_names(stored) : llama_names(stored);
}

std::string why_not(const Decoder& decoder, const std::string& format, bool merge) {
  const HfFamily family = hf_family(decoder.config());
  if (family.name.empty()) return family.reason;
  if (family.name != format)
    return fmt::format("its settings are those of Hugging Face's {}", family.name);
  std::set<std::string> present;
  const Contents contents = contents_of(decoder, merge);
  for (const auto& [name, tensor] : contents) present.insert(name);
  for (const StoredTensor& tensor : hf_layout(decoder, format)) {
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
  std::vector<StoredTensor> all = hf_layout(decoder, format);
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
