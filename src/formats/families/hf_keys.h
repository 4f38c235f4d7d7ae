// What the families of Hugging Face configurations share: typed keys, and the rotary positions.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/config.h"

namespace refract {

// Typed access to the keys of one object; every complaint names the file, the key and its value.
// The object must outlive it.
class HfKeys {
 public:
  HfKeys(const nlohmann::json& tree, std::string where) : tree_(tree), where_(std::move(where)) {}

  bool has(const char* key) const;     // and it is not null
  bool stands(const char* key) const;  // even as null
  const nlohmann::json& at(const char* key) const;

  int64_t count(const char* key, int64_t otherwise) const;  // from 1 on
  int64_t count(const char* key) const;                     // fails where there is none
  double number(const char* key, double otherwise) const;
  bool flag(const char* key, bool otherwise) const;
  std::string text(const char* key, const std::string& otherwise) const;
  std::vector<std::string> texts(const char* key) const;  // of a list; none where there is no key

  [[noreturn]] void complain(const char* key, const std::string& wanted) const;
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& tree_;
  std::string where_;
};

// Rotary positions of a configuration as transformers 5 (rope_parameters) or 4 (rope_theta and
// rope_scaling, which 5 prefers where both stand) spells them; without them those of `c`. A
// partial_rotary_factor other than 1 is taken where `partial`, and refused elsewhere; so are types
// that refract doesn't compute (longrope), and tables for each type of layer.
void read_rope(const HfKeys& keys, ModelConfig& c, bool partial);

// The same to write: transformers 5's rope_parameters, and 4's rope_scaling, null without scaling.
nlohmann::json rope_parameters_json(const ModelConfig& c);
nlohmann::json rope_scaling_json(const ModelConfig& c);

}  // namespace refract
