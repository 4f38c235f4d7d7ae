#include "transforms/legacy/legacy_analog.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/untrusted.h"
#include "text/regex.h"
#include "transforms/legacy/legacy_yaml.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kLinear = R"(model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj)";

// A map whose keys are taken one by one; what is left at the end is unknown.
class Settings {
 public:
  Settings(json map, std::string where) : map_(std::move(map)), where_(std::move(where)) {
    if (!map_.is_object()) fail_usage("{} takes a map of settings", where_);
  }

  template <class T>
  T take(const std::string& key, const T& otherwise) {
    known_.push_back(key);
    if (!map_.contains(key) || map_[key].is_null()) return otherwise;
    const json value = map_[key];
    map_.erase(key);
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_same_v<T, std::string> ? value.is_string()
                                                       : value.is_number();
    if (!fits) fail_usage("{}: {} = {} is of another type", where_, key, shown(value.dump()));
    return value.get<T>();
  }
  // A setting that has no like here and must be what it is when it does nothing.
  template <class T>
  void only(const std::string& key, const T& value) {
    const T found = take(key, value);
    if (found != value)
      fail_usage("{}: only {} = {} has a like here, not {}", where_, key, value, found);
  }
  void finish() const {
    for (const auto& [key, value] : map_.items()) {
      if (value.is_null()) continue;
      fail_usage("{}: unknown setting '{}'; did you mean '{}'?", where_, shown(key),
                 nearest_name(key, known_));
    }
  }
  const std::string& where() const { return where_; }

 private:
  json map_;
  std::string where_;
  std::vector<std::string> known_;
};

json without_converters(int64_t rows, int64_t columns) {
  return {{"kind", "analog"}, {"tile_rows", rows}, {"tile_columns", columns}, {"x_bits", 0},
          {"adc_bits", 0},    {"out_bound", 0},    {"out_noise", 0},          {"w_scale", "tile"}};
}

// ---- NewComputeBench

json digital_tile(Settings& settings, int64_t size) {
  json rule = {{"kind", "analog"}, {"preset", "sram"}, {"tile_rows", size}, {"tile_columns", size}};
  rule["x_format"] = settings.take<std::string>("x_quant_type", "none");
  rule["w_format"] = settings.take<std::string>("weight_quant_type", "none");
  settings.take<std::string>("rescale_dim", "vector");  // their code knows vectors alone
  if (settings.take("approximate_mode", false)) rule["product_noise"] = 0.053;
  return rule;
}

json reram_tile(Settings& settings, int64_t size) {
  json rule = without_converters(size, size);
  rule["x_bits"] = settings.take<int64_t>("num_bits", 8);
  settings.only("quantile", 1.0);
  const auto noise = settings.take("noise_magnitude", 0.0);
  if (settings.take("weight_noise", 0.0) != 0) {
    fail_usage(
        "{}: weight_noise is in the weight's own units; write noise_magnitude, a share of a "
        "tile's largest weight",
        settings.where());
  }
  if (noise == 0) return rule;
  rule.update({{"preset", "gaussian"}, {"w_noise", noise}, {"w_noise_per", "tile"}});
  return rule;
}

json pcm_tile(Settings& settings, int64_t size) {
  json rule = without_converters(size, size);
  const auto bits = settings.take<int64_t>("num_bits", 8);
  rule["x_bits"] = settings.take("width", bits);
  rule["adc_bits"] = 8;
  rule["adc_range"] = "vector";
  rule["out_bound"] = 10;
  settings.only("is_signed", true);
  // Its noise of programming is that of devices of 25 uS on weights that are at most gmax.
  const double gmax = settings.take("gmax", 5.0);
  if (!(gmax > 0)) fail_usage("{}: gmax must be positive", settings.where());
  if (settings.take("programming_noise", false)) {
    rule.update({{"preset", "pcm"}, {"programming_noise", 25 / gmax}, {"train_programming", true}});
  }
  if (settings.take("read_noise", false)) rule["read_noise"] = 0.0175 / std::sqrt(gmax);
  if (settings.take("ir_drop", false)) rule["ir_drop"] = gmax;
  if (settings.take("out_noise", false)) rule["out_noise"] = 0.04 / gmax;
  return rule;
}

json tile_rule(const json& config, const std::string& where) {
  Settings settings(config, where);
  const auto type = settings.take<std::string>("tile_type", "");
  json rule;
  if (type == "original") {
    rule = {{"kind", "none"}};
  } else {
    const auto size = settings.take<int64_t>("core_size", type == "pcm" ? 256 : 64);
    if (size < 1) fail_usage("{}: core_size must be positive", where);
    if (type == "digital") {
      rule = digital_tile(settings, size);
    } else if (type == "reram") {
      rule = reram_tile(settings, size);
    } else if (type == "pcm") {
      rule = pcm_tile(settings, size);
    } else {
      fail_usage("{}: tile_type '{}' is not one of digital, reram, pcm, original", where,
                 shown(type));
    }
  }
  settings.finish();
  return rule;
}

json bench_rules(const json& tree, const std::string& file) {
  const json& by = tree.at("by");
  if (by != "type" && by != "name") fail_usage("{}: by takes \"type\" or \"name\"", file);
  json rules = json::array();
  for (const auto& [name, entry] : tree.items()) {
    if (name == "by" || (by == "type" && name != "linear")) continue;
    if (!entry.is_object() || !entry.contains("config"))
      fail_usage("{}: '{}' holds no map `config`", file, shown(name));
    json rule = tile_rule(entry["config"], fmt::format("{}: {}", file, shown(name)));
    rule["match"] = by == "type" ? kLinear : pattern_of_name(name);
    rules.push_back(std::move(rule));
  }
  if (rules.empty()) fail_usage("{}: it says nothing of linear layers", file);
  return rules;
}

// ---- aihwkit-lightning

// Of 2^b - 2 steps, or their inverse; 0 for none.
int64_t bits_of(double resolution, const std::string& key, const std::string& where) {
  if (resolution <= 0) return 0;
  const double steps = resolution > 1 ? resolution : 1 / resolution;
  const double bits = std::log2(steps + 2);
  if (std::abs(bits - std::round(bits)) > 1e-6 || bits < 2 || bits > 16)
    fail_usage("{}: {} = {} is not 2^b - 2 steps of 2 to 16 bits b", where, key, resolution);
  return static_cast<int64_t>(std::round(bits));
}

void add_input_range(Settings& s, json& rule) {
  const bool enabled = s.take("input_range_enable", false);
  const bool dynamic = s.take("input_range_dynamic", false);
  const bool learned = s.take("input_range_learn_input_range", true);
  s.only("input_range_fast_mode", false);
  s.only("input_range_init_with_max", false);
  s.only("input_range_init_value", 3.0);
  s.only("input_range_init_std_alpha", 3.0);
  s.only("input_range_input_min_percentage", 0.95);
  const auto batches = s.take<int64_t>("input_range_init_from_data", 100);
  const double decay = s.take("input_range_decay", 0.001);
  if (!enabled && rule["x_bits"] != 0)
    fail_usage("{}: forward_inp_res needs input_range_enable = true", s.where());
  if (!enabled) return;
  rule["x_range"] = dynamic ? "dynamic" : learned ? "learned" : "ema";
  if (rule["x_range"] == "learned") rule.update({{"x_init", batches}, {"x_decay", decay}});
}

void add_weight_noise(Settings& s, json& rule) {
  const double noise = s.take("modifier_std_dev", 0.0);
  const auto type = s.take<std::string>("modifier_type", "none");
  const bool in_tests = s.take("modifier_enable_during_test", false);
  if (s.take("modifier_res", -1.0) > 0)
    fail_usage("{}: modifier_res: levels of the weight are set by w_bits here", s.where());
  if (type == "none" || noise == 0) return;
  const std::map<std::string, const char*> known = {{"add_gauss", "tile"},
                                                    {"add_gauss_channel", "column"}};
  const auto per = known.find(type);
  if (per == known.end()) {
    fail_usage("{}: modifier_type '{}' is not one of add_gauss, add_gauss_channel, none", s.where(),
               shown(type));
  }
  rule.update({{"w_noise", noise}, {"w_noise_per", per->second}});
  if (in_tests) rule["preset"] = "gaussian";
}

void add_clip(Settings& s, json& rule) {
  const double sigma = s.take("clip_sigma", -1.0);
  const auto type = s.take<std::string>("clip_type", "none");
  if (type == "none" || sigma <= 0) return;
  if (type != "gaussian")
    fail_usage("{}: only clip_type = gaussian or none has a like here", s.where());
  rule["w_clip"] = sigma;
}

json lightning_rules(const json& tree, const std::string& file) {
  Settings s(tree["rpu_config"], file + ": rpu_config");
  const auto rows = s.take<int64_t>("mapping_max_input_size", -1);
  json rule = without_converters(rows > 0 ? rows : 0, 0);
  rule["match"] = kLinear;
  rule["x_bits"] = bits_of(s.take("forward_inp_res", -1.0), "forward_inp_res", s.where());
  rule["out_noise"] = s.take("forward_out_noise", 0.0);
  rule["w_scale"] = s.take("forward_out_noise_per_channel", false) ? "column" : "tile";
  const double bound = s.take("forward_out_bound", -1.0);
  rule["out_bound"] = bound > 0 ? bound : 0;
  rule["adc_bits"] = bits_of(s.take("forward_out_res", -1.0), "forward_out_res", s.where());
  add_input_range(s, rule);
  add_weight_noise(s, rule);
  add_clip(s, rule);
  s.finish();
  return json::array({rule});
}

}  // namespace

bool is_legacy_analog(const fs::path& path) {
  return legacy_yaml_has(path, "by") || legacy_yaml_has(path, "rpu_config");
}

std::string legacy_analog_rules(const fs::path& path) {
  const json tree = json::parse(legacy_yaml_tree(path));
  const std::string file = path.string();
  return (tree.contains("rpu_config") ? lightning_rules(tree, file) : bench_rules(tree, file))
      .dump();
}

}  // namespace refract
