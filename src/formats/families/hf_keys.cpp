#include "formats/families/hf_keys.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {

using nlohmann::json;

bool HfKeys::has(const char* key) const { return tree_.contains(key) && !tree_[key].is_null(); }
bool HfKeys::stands(const char* key) const { return tree_.contains(key); }
const json& HfKeys::at(const char* key) const { return tree_[key]; }

int64_t HfKeys::count(const char* key, int64_t otherwise) const {
  if (!has(key)) return otherwise;
  if (!tree_[key].is_number_integer() || tree_[key].get<int64_t>() <= 0)
    complain(key, "a positive whole number");
  return tree_[key].get<int64_t>();
}

int64_t HfKeys::count(const char* key) const {
  if (!has(key)) fail("'{}' has no '{}'", where_, key);
  return count(key, 0);
}

double HfKeys::number(const char* key, double otherwise) const {
  if (!has(key)) return otherwise;
  if (!tree_[key].is_number()) complain(key, "a number");
  return tree_[key].get<double>();
}

bool HfKeys::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  if (!tree_[key].is_boolean()) complain(key, "true or false");
  return tree_[key].get<bool>();
}

std::string HfKeys::text(const char* key, const std::string& otherwise) const {
  if (!has(key)) return otherwise;
  if (!tree_[key].is_string()) complain(key, "a text");
  return tree_[key].get<std::string>();
}

std::vector<std::string> HfKeys::texts(const char* key) const {
  std::vector<std::string> all;
  if (!has(key)) return all;
  if (!tree_[key].is_array()) complain(key, "a list of texts");
  for (const json& entry : tree_[key]) {
    if (!entry.is_string()) complain(key, "a list of texts");
    all.push_back(entry.get<std::string>());
  }
  return all;
}

void HfKeys::complain(const char* key, const std::string& wanted) const {
  fail("'{}': {} = {} is not supported; refract's decoder needs {}", where_, key, shown(tree_[key]),
       wanted);
}

namespace {

// transformers takes that of config.json itself first, then the table's, then the longest text's.
int64_t original_context(const HfKeys& keys, const HfKeys& rope, const ModelConfig& c) {
  constexpr const char* kKey = "original_max_position_embeddings";
  return keys.has(kKey) ? keys.count(kKey) : rope.count(kKey, c.max_position_embeddings);
}

double yarn_magnitude(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

void read_yarn(const HfKeys& rope, ModelConfig& c) {
  const auto beta = [&](const char* key, double otherwise) {
    const double value = rope.number(key, otherwise);
    if (value < 0) rope.complain(key, "a positive number");
    return value == 0 ? otherwise : value;
  };
  c.rope_beta_fast = beta("beta_fast", 32);
  c.rope_beta_slow = beta("beta_slow", 1);
  c.rope_truncate = rope.flag("truncate", true);
  if (rope.has("attention_factor")) {
    c.rope_attention_factor = rope.number("attention_factor", 0);
    if (c.rope_attention_factor <= 0) rope.complain("attention_factor", "a positive number");
    return;
  }
  const double scale = rope.number("mscale", 0), of_all = rope.number("mscale_all_dim", 0);
  if (scale != 0 && of_all != 0) {
    c.rope_attention_factor =
        yarn_magnitude(c.rope_factor, scale) / yarn_magnitude(c.rope_factor, of_all);
    if (c.rope_attention_factor <= 0) rope.complain("mscale", "a positive number");
  }
}

void read_scaling(const HfKeys& keys, const HfKeys& rope, const std::string& type, ModelConfig& c) {
  c.rope_scaling = type;
  const bool original = type == "llama3" || type == "yarn";
  if (original) c.rope_original_max_position_embeddings = original_context(keys, rope, c);
  if (type == "yarn" && rope.stands("factor") && !rope.has("factor")) {  // null: by the contexts
    c.rope_factor = static_cast<double>(c.max_position_embeddings) /
                    static_cast<double>(c.rope_original_max_position_embeddings);
  } else {
    if (!rope.has("factor")) fail("'{}' has no factor", rope.where());
    c.rope_factor = rope.number("factor", 1);
  }
  if (!(c.rope_factor >= 1)) rope.complain("factor", "1 or more");
  if (type == "yarn") read_yarn(rope, c);
  if (type != "llama3") return;
  c.rope_low_freq_factor = rope.number("low_freq_factor", 1);
  c.rope_high_freq_factor = rope.number("high_freq_factor", 4);
}

}  // namespace

void read_rope(const HfKeys& keys, ModelConfig& c, bool partial) {
  const char* key = keys.has("rope_scaling") && !keys.at("rope_scaling").empty()
                        ? "rope_scaling"
                        : "rope_parameters";
  c.rope_theta = keys.number("rope_theta", c.rope_theta);
  if (!(c.rope_theta > 0)) keys.complain("rope_theta", "a number above 0");
  if (!keys.has(key)) return;
  if (!keys.at(key).is_object()) keys.complain(key, "a table");
  const HfKeys rope(keys.at(key), fmt::format("{}: {}", keys.where(), key));
  for (const char* layers : {"full_attention", "sliding_attention"}) {
    if (rope.has(layers)) rope.complain(layers, "one table for the layers of every type");
  }
  c.rope_theta = rope.number("rope_theta", c.rope_theta);
  if (!(c.rope_theta > 0)) rope.complain("rope_theta", "a number above 0");
  const double factor = rope.number("partial_rotary_factor", c.partial_rotary_factor);
  if (factor != 1 && !partial) rope.complain("partial_rotary_factor", "1");
  c.partial_rotary_factor = factor;
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  if (type == "default") return;
  if (type != "linear" && type != "dynamic" && type != "yarn" && type != "llama3")
    rope.complain(type_key, "default, linear, dynamic, yarn or llama3");
  read_scaling(keys, rope, type, c);
}

json rope_scaling_json(const ModelConfig& c) {
  json scaling;
  if (c.rope_scaling == "none") return scaling;
  scaling = {{"rope_type", c.rope_scaling}, {"factor", c.rope_factor}};
  if (c.rope_scaling == "llama3" || c.rope_scaling == "yarn")
    scaling["original_max_position_embeddings"] = c.rope_original_max_position_embeddings;
  if (c.rope_scaling == "llama3") {
    scaling["low_freq_factor"] = c.rope_low_freq_factor;
    scaling["high_freq_factor"] = c.rope_high_freq_factor;
  }
  if (c.rope_scaling != "yarn") return scaling;
  const ModelConfig usual;  // whose values a table leaves out
  if (c.rope_beta_fast != usual.rope_beta_fast) scaling["beta_fast"] = c.rope_beta_fast;
  if (c.rope_beta_slow != usual.rope_beta_slow) scaling["beta_slow"] = c.rope_beta_slow;
  if (!c.rope_truncate) scaling["truncate"] = false;
  if (c.rope_attention_factor > 0) scaling["attention_factor"] = c.rope_attention_factor;
  return scaling;
}

json rope_parameters_json(const ModelConfig& c) {
  const json scaling = rope_scaling_json(c);
  json parameters = scaling.is_null() ? json{{"rope_type", "default"}} : scaling;
  parameters["rope_theta"] = c.rope_theta;
  return parameters;
}

}  // namespace refract
