#include "formats/hf_config.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/untrusted.h"
#include "formats/families/families.h"
#include "formats/families/hf_keys.h"
#include "formats/gguf/gguf_config.h"

namespace refract {
namespace {

using nlohmann::json;

void refuse_what_no_family_has(const HfKeys& keys) {
  if (keys.has("quantization_config"))
    keys.complain("quantization_config", "weights that are not quantized");
}

ModelConfig from_refract(const json& tree, const std::string& where) {
  ModelConfig c;
  Fields fields;
  describe(fields, c);
  for (const auto& [key, value] : tree.items()) {
    const bool about_the_file = key == "model_type" || key == "architectures" || key == "dtype" ||
                                key == "torch_dtype" || key == "bos_token_id" ||
                                key == "eos_token_id" || key == "pad_token_id";
    if (!about_the_file) fields.set("model." + key, value, where);
  }
  return c;
}

// A number where there is one, as most programs expect.
json eos_json(const TokenIds& ids) {
  if (ids.eos.empty()) return nullptr;
  return ids.eos.size() == 1 ? json(ids.eos.front()) : json(ids.eos);
}

}  // namespace

HfFamily hf_family(const ModelConfig& config) {
  struct Miss {
    const Family* family;
    std::vector<std::string> reasons;
  };
  std::vector<Miss> misses;
  size_t fewest = SIZE_MAX;
  for (const Family& family : families()) {
    std::vector<std::string> reasons = family.against(config);
    if (reasons.empty()) return {family.type, ""};
    fewest = std::min(fewest, reasons.size());
    misses.push_back({&family, std::move(reasons)});
  }
  std::string reason;
  for (const Miss& miss : misses) {
    if (miss.reasons.size() > fewest) continue;
    reason += fmt::format("{} {} has no {}", reason.empty() ? "Hugging Face's" : "; its",
                          miss.family->title, fmt::join(miss.reasons, ", no "));
  }
  return {"", reason};
}

std::string model_type_of(const json& tree, const std::string& where) {
  const std::string type = HfKeys(tree, where).text("model_type", "");
  if (type.empty()) {
    fail("'{}' has no model_type; refract reads {} and its own, refract", where, family_types());
  }
  if (type != "refract" && !find_family(type)) {
    fail("'{}': model_type = \"{}\" is not supported; refract reads {} and its own, refract", where,
         shown(type), family_types());
  }
  return type;
}

ModelConfig config_from_json(const json& tree, const std::string& where) {
  const std::string type = model_type_of(tree, where);
  const HfKeys keys(tree, where);
  if (type != "refract") refuse_what_no_family_has(keys);
  ModelConfig config =
      type == "refract" ? from_refract(tree, where) : find_family(type)->from(keys);
  try {
    resolve(config, 0, 0);
  } catch (const Error& e) {
    fail("'{}': {}", where, e.what());
  }
  return config;
}

json config_to_json(const ModelConfig& config, const std::string& format, const std::string& dtype,
                    const TokenIds& ids) {
  json tree;
  if (format == "refract") {
    ModelConfig copy = config;
    Fields fields;
    describe(fields, copy);
    tree = fields.to_json()["model"];
    tree["architectures"] = {"RefractDecoder"};
  } else {
    tree = family_named(format).to(config);
    tree["tie_word_embeddings"] = config.tie_word_embeddings;
    tree["initializer_range"] = config.initializer_range;
    tree["use_cache"] = true;
  }
  tree["model_type"] = format;
  tree["dtype"] = tree["torch_dtype"] = dtype;
  // Written even when unknown: left out, the families would assume the ids of their first
  // tokenizer.
  tree["bos_token_id"] = ids.bos ? json(*ids.bos) : json();
  tree["eos_token_id"] = eos_json(ids);
  return tree;
}

json generation_config_json(const TokenIds& ids) {
  json tree = {{"_from_model_config", true}, {"use_cache", true}};
  if (ids.bos) tree["bos_token_id"] = *ids.bos;
  if (!ids.eos.empty()) tree["eos_token_id"] = eos_json(ids);
  return tree;
}

json read_config_json(const std::filesystem::path& folder) {
  if (is_gguf_file(folder)) return read_gguf_config(folder);
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path)) {
    fail(
        "'{}' has no config.json; a model folder holds config.json and model.safetensors "
        "(save_pretrained and refract "
        "write such folders)",
        folder.string());
  }
  json tree =
      parse_json(read_file(path, "the model's configuration"), fmt::format("'{}'", path.string()));
  if (!tree.is_object()) fail("'{}' is not JSON with one object", path.string());
  return tree;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  return config_from_json(read_config_json(folder), config_place(folder));
}

}  // namespace refract
