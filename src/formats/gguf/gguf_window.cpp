#include "formats/gguf/gguf_window.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr const char *kSlidingLayer = "sliding_attention", *kFullLayer = "full_attention";
constexpr int64_t kMostLayers = 100'000;  // nobody vouches for the number

std::string window_key(std::string_view architecture) {
  return fmt::format("{}.attention.sliding_window", architecture);
}

std::string pattern_key(std::string_view architecture) {
  return window_key(architecture) + "_pattern";
}

// What each layer is; empty where all slide.
std::vector<int64_t> pattern_of(const GgufMetadata& settings, const std::string& key,
                                int64_t layers) {
  std::vector<int64_t> slides;
  if (!settings.has(key)) return slides;
  if (settings.is_list(key)) {
    slides = settings.wholes(key);
    if (static_cast<int64_t>(slides.size()) != layers)
      settings.complain(key, fmt::format("a list of {} flags, one for each layer", layers));
  } else {
    const int64_t period = settings.whole(key);
    if (period < 0 || layers > kMostLayers)
      settings.complain(key,
                        fmt::format("0 or more, of a model of {} layers at most", kMostLayers));
    if (period == 0) return slides;
    for (int64_t i = 0; i < layers; ++i) slides.push_back(i % period < period - 1 ? 1 : 0);
  }
  if (std::count(slides.begin(), slides.end(), 0) == 0) slides.clear();
  return slides;
}

}  // namespace

void read_gguf_window(const GgufMetadata& settings, std::string_view architecture, json& tree) {
  const std::string key = window_key(architecture), pattern = pattern_key(architecture);
  const int64_t window = settings.whole(key, 0);
  if (window < 0) settings.complain(key, "0 or more tokens");
  if (window == 0 || window >= tree.at("max_position_embeddings").get<int64_t>()) return;
  const std::vector<int64_t> slides =
      pattern_of(settings, pattern, tree.at("num_hidden_layers").get<int64_t>());
  const auto slide = [](int64_t flag) { return flag != 0; };
  if (!slides.empty() && std::none_of(slides.begin(), slides.end(), slide)) return;
  tree["sliding_window"] = window;
  if (tree.at("model_type") == "llama") {
    tree["model_type"] = "mistral";
    if (!slides.empty()) settings.complain(pattern, "the same for all layers, as a Mistral's are");
    return;
  }
  tree["use_sliding_window"] = true;
  tree["max_window_layers"] = 0;  // without a list all slide
  if (slides.empty()) return;
  json types = json::array();
  for (const int64_t flag : slides) types.push_back(slide(flag) ? kSlidingLayer : kFullLayer);
  tree["layer_types"] = std::move(types);
}

bool add_gguf_window(GgufMetadataWriter& settings, std::string_view architecture,
                     const json& config) {
  const json window = config.value("sliding_window", json());
  if (config.at("model_type") == "llama" || !window.is_number_integer() ||
      !config.value("use_sliding_window", true))
    return false;
  const auto tokens = window.get<int64_t>();
  if (tokens < 1 || tokens > UINT32_MAX) fail("GGUF can't hold sliding_window = {}", tokens);
  settings.add_whole(window_key(architecture), static_cast<uint32_t>(tokens));
  std::vector<uint8_t> slides;
  for (const json& type : config.value("layer_types", json::array()))
    slides.push_back(type == kSlidingLayer ? 1 : 0);
  if (std::count(slides.begin(), slides.end(), 0) > 0)
    settings.add_flags(pattern_key(architecture), slides);
  return true;
}

}  // namespace refract
