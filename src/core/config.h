// Typed settings: one description of each key gives parsing, limits, help, errors and the resolved
// file.
//
// A part of the program keeps its settings in a plain struct with defaults and describes it once:
//     void describe(Fields& fields, OptimizerConfig& c) {
//       fields.add({"optimizer.lr", Decides::kOutcome}, c.lr, "peak learning rate", {.min = 0});
//     }
// Each setting says there what it decides, and whether two runs or models are the same follows.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace refract {

// Inclusive limits of a number, exclusive at `min` where `open_min` is set.
struct Limits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;
};

// What a setting decides. A value includes those before it: what decides the function decides the
// outcome as well.
enum class Decides {
  kNothing,   // neither of the two: where a run lies, how often it reports
  kOutcome,   // what training gives: any bit of a trained model may depend on it
  kFunction,  // what a model computes from its weights
};

// How a setting or a parameter is called. A setting's name has a dot and stands beside what the
// setting decides, {"optimizer.lr", Decides::kOutcome}: alone it does not compile. The parameters
// of a kind have plain names ("rank"); they are parts of [[transform]], which decides the function.
struct Key {
  constexpr Key(std::string_view name, Decides what) : text(name), decides(what) {}
  // NOLINTNEXTLINE(google-explicit-constructor): "rank" alone is a key
  consteval Key(const char* plain) : Key(plain, Decides::kFunction) {
    if (text.find('.') != std::string_view::npos)  // NOLINTNEXTLINE(bugprone-*): never thrown
      throw "a setting says what it decides: {\"optimizer.lr\", Decides::kOutcome}";
  }
  std::string_view text;
  Decides decides;
};

struct Field {
  std::string key;  // dotted, "optimizer.lr"
  Decides decides;
  std::string help;  // one line
  std::string
      type;  // "number", "integer", "text", "true | false", "adamw | adam", "list of numbers"
  std::string limits;                              // ">= 0", or empty
  std::string default_value;                       // as TOML
  std::function<void(const nlohmann::json&)> set;  // throws Error (usage) for a wrong type or value
  std::function<nlohmann::json()> get;
};

class Fields {
 public:
  void add(Key key, bool& value, std::string help);
  void add(Key key, int64_t& value, std::string help, Limits limits = {});
  void add(Key key, double& value, std::string help, Limits limits = {});
  // A number is accepted and kept as its text, so that "all" and 10 can share a key. Non-empty
  // `choices` limit it.
  void add(Key key, std::string& value, std::string help, std::vector<std::string> choices = {});
  void add(Key key, std::vector<double>& value, std::string help);
  void add(Key key, std::vector<int64_t>& value, std::string help);
  void add(Key key, std::vector<std::string>& value, std::string help);
  // Kept as it is (an array of tables, say), as JSON text, and checked by its owner; empty: not
  // given.
  void add_raw(Key key, std::string& json_text, std::string help);

  const std::vector<Field>& all() const { return fields_; }
  const Field* find(std::string_view key) const;

  // Sets one key; an unknown one is an error that names the nearest known one and `where` it stood.
  void set(std::string_view key, const nlohmann::json& value, std::string_view where);
  // Sets every key of a nested object ({"optimizer": {"lr": ...}}).
  void set_all(const nlohmann::json& tree, std::string_view where);
  nlohmann::json to_json() const;  // nested object of all values
  // What decides at least `least` of a tree like to_json()'s, of a settings file say. Keys that are
  // not described here stay.
  nlohmann::json deciding(nlohmann::json tree, Decides least) const;
  std::string help_text() const;  // one line per key: key, type, default, help
  std::string nearest(std::string_view key) const;

 private:
  Field& append(Key key, std::string help, std::string type);
  std::vector<Field> fields_;
};

// The known name nearest to `name` by edit distance; empty when `known` is empty.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

// "key=value" -> (key, value); the value is read as TOML, or as plain text where it isn't TOML.
std::pair<std::string, nlohmann::json> parse_override(std::string_view text);

}  // namespace refract
