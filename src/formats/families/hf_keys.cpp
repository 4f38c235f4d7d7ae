#include "formats/families/hf_keys.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {

using nlohmann::json;

bool HfKeys::has(const char* key) const { return tree_.contains(key) && !tree_[key].is_null(); }
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

void HfKeys::complain(const char* key, const std::string& wanted) const {
  fail("'{}': {} = {} is not supported; refract's decoder needs {}", where_, key, shown(tree_[key]),
       wanted);
}

void read_rope(const HfKeys& keys, ModelConfig& c, bool partial) {
  const char* key = keys.has("rope_scaling") && !keys.at("rope_scaling").empty()
                        ? "rope_scaling"
                        : "rope_parameters";
  c.rope_theta = keys.number("rope_theta", c.rope_theta);
  if (!keys.has(key)) return;
  if (!keys.at(key).is_object()) keys.complain(key, "a table");
  const HfKeys rope(keys.at(key), fmt::format("{}: {}", keys.where(), key));
  c.rope_theta = rope.number("rope_theta", c.rope_theta);
  const double factor = rope.number("partial_rotary_factor", c.partial_rotary_factor);
  if (factor != 1 && !partial) rope.complain("partial_rotary_factor", "1");
  c.partial_rotary_factor = factor;
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.text(type_key, "default");
  if (type == "default") return;
  if (type != "linear" && type != "llama3") rope.complain(type_key, "default, linear or llama3");
  c.rope_scaling = type;
  if (!rope.has("factor")) fail("'{}' has no factor", rope.where());
  c.rope_factor = rope.number("factor", 1);
  if (c.rope_factor < 1) rope.complain("factor", "1 or more");
  if (type == "linear") return;
  c.rope_low_freq_factor = rope.number("low_freq_factor", 1);
  c.rope_high_freq_factor = rope.number("high_freq_factor", 4);
  c.rope_original_max_position_embeddings =
      rope.count("original_max_position_embeddings", c.max_position_embeddings);
}

json rope_scaling_json(const ModelConfig& c) {
  json scaling;
  if (c.rope_scaling != "none")
    scaling = {{"rope_type", c.rope_scaling}, {"factor", c.rope_factor}};
  if (c.rope_scaling == "llama3") {
    scaling["low_freq_factor"] = c.rope_low_freq_factor;
    scaling["high_freq_factor"] = c.rope_high_freq_factor;
    scaling["original_max_position_embeddings"] = c.rope_original_max_position_embeddings;
  }
  return scaling;
}

json rope_parameters_json(const ModelConfig& c) {
  const json scaling = rope_scaling_json(c);
  json parameters = scaling.is_null() ? json{{"rope_type", "default"}} : scaling;
  parameters["rope_theta"] = c.rope_theta;
  return parameters;
}

}  // namespace refract
