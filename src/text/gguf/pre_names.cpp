#include "text/gguf/pre_names.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "core/untrusted.h"
#include "text/pre_tokenizer.h"

namespace refract {
namespace {

using nlohmann::json;

enum class FrontKind { kGpt2, kDigits, kLlama3, kQwen2 };

struct PreName {
  std::string_view name;
  FrontKind front;
};
// The first of a kind is the one that is written.
constexpr PreName kPreNames[] = {
    {"gpt-2", FrontKind::kGpt2},    {"phi-2", FrontKind::kGpt2},
    {"smollm", FrontKind::kDigits}, {"starcoder", FrontKind::kDigits},
    {"refact", FrontKind::kDigits}, {"llama-bpe", FrontKind::kLlama3},
    {"llama3", FrontKind::kLlama3}, {"llama-v3", FrontKind::kLlama3},
    {"qwen2", FrontKind::kQwen2},   {"deepseek-r1-qwen", FrontKind::kQwen2},
};

json front_byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json front_split(std::string_view pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", std::string(pattern)}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json front_sequence(json first, bool use_regex) {
  return {{"type", "Sequence"},
          {"pretokenizers", json::array({std::move(first), front_byte_level(use_regex)})}};
}

json front_json(FrontKind kind) {
  switch (kind) {
    case FrontKind::kGpt2:
      break;
    case FrontKind::kDigits:
      return front_sequence({{"type", "Digits"}, {"individual_digits", true}}, true);
    case FrontKind::kLlama3:
      return front_sequence(front_split(kLlama3Pattern), false);
    case FrontKind::kQwen2:
      return front_sequence(front_split(kQwen2Pattern), false);
  }
  return front_byte_level(true);
}

// What a pre-tokenizer does, one step after another, without its spelling.
std::string steps_of(const json& part) {
  const std::string type = part.is_object() ? part.value("type", "") : "";
  std::string steps;
  if (type == "Sequence") {
    for (const json& member : part.at("pretokenizers")) steps += steps_of(member);
    return steps;
  }
  if (type == "ByteLevel")
    return fmt::format("bytes {} {};", part.value("add_prefix_space", true),
                       part.value("use_regex", true));
  if (type == "Digits") return fmt::format("digits {};", part.value("individual_digits", false));
  if (type == "Split")
    return fmt::format("split {} {} {};", part.at("pattern").dump(), part.value("behavior", ""),
                       part.value("invert", false));
  return "? " + type + ";";
}

bool is_nfc(const json& normalizer) {
  if (!normalizer.is_object()) return false;
  if (normalizer.value("type", "") != "Sequence") return normalizer.value("type", "") == "NFC";
  const json& members = normalizer.at("normalizers");
  return std::any_of(members.begin(), members.end(), is_nfc);
}

}  // namespace

GgufFront gguf_front(const std::string& name, const std::string& where) {
  FrontKind kind = FrontKind::kGpt2;
  if (name.empty() || name == "default") {
    log_warning(
        "'{}' does not say how its tokenizer cuts text (tokenizer.ggml.pre); it is cut as GPT-2's "
        "does",
        where);
  } else {
    const auto* found = std::find_if(std::begin(kPreNames), std::end(kPreNames),
                                     [&](const PreName& known) { return known.name == name; });
    if (found == std::end(kPreNames)) {
      std::vector<std::string_view> names;
      for (const PreName& known : kPreNames) names.push_back(known.name);
      fail(
          "'{}': how a tokenizer of tokenizer.ggml.pre = '{}' cuts text is not known here ({} "
          "are); "
          "name the model's own with data.tokenizer",
          where, shown(name), fmt::join(names, ", "));
    }
    kind = found->front;
  }
  GgufFront front;
  front.normalizer = kind == FrontKind::kQwen2 ? R"({"type":"NFC"})" : "null";
  front.pre_tokenizer = front_json(kind).dump();
  front.ignore_merges = front.adds_bos = kind == FrontKind::kLlama3;
  return front;
}

std::string gguf_pre_name(const json& tokenizer) {
  const std::string steps = steps_of(tokenizer.value("pre_tokenizer", json()));
  const bool nfc = is_nfc(tokenizer.value("normalizer", json()));
  for (const PreName& known : kPreNames) {
    if (nfc == (known.front == FrontKind::kQwen2) && steps == steps_of(front_json(known.front)))
      return std::string(known.name);
  }
  return "";
}

}  // namespace refract
