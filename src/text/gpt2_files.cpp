#include "text/gpt2_files.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/untrusted.h"
#include "text/json_trouble.h"
#include "text/pre_tokenizer.h"

namespace refract {
namespace {

using nlohmann::ordered_json;

// One "left right" a line; a first line of "#version" is a comment.
ordered_json read_merges(std::string_view text) {
  ordered_json merges = ordered_json::array();
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(std::string(line));
  }
  return merges;
}

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// What stands before the model: normalizer and pre-tokenizer.
std::pair<ordered_json, ordered_json> front_of(const std::string& tokenizer_class,
                                               const std::string& where) {
  const ordered_json nfc = {{"type", "NFC"}};
  if (tokenizer_class.empty() || tokenizer_class == "GPT2Tokenizer" ||
      tokenizer_class == "CodeGenTokenizer")
    return {nullptr, byte_level(true)};
  if (tokenizer_class == "GPTNeoXTokenizer") return {nfc, byte_level(true)};
  if (tokenizer_class == "Qwen2Tokenizer") {
    const ordered_json split = {{"type", "Split"},
                                {"pattern", {{"Regex", kQwen2Pattern}}},
                                {"behavior", "Isolated"},
                                {"invert", false}};
    return {
        nfc,
        {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, byte_level(false)})}}};
  }
  fail(
      "{}: how the tokenizer class {} cuts text is not known for vocab.json and merges.txt; save "
      "the tokenizer with transformers (AutoTokenizer.from_pretrained, then save_pretrained), "
      "which "
      "writes a tokenizer.json",
      where, tokenizer_class);
}

}  // namespace

std::string gpt2_tokenizer_json(std::string_view vocab_json, std::string_view merges_txt,
                                const std::string& tokenizer_class, const std::string& where) {
  try {
    const auto vocab = parse_json(vocab_json, where);
    const auto [normalizer, pre_tokenizer] = front_of(tokenizer_class, where);
    const ordered_json model = {{"type", "BPE"},
                                {"dropout", nullptr},
                                {"unk_token", nullptr},
                                {"continuing_subword_prefix", ""},
                                {"end_of_word_suffix", ""},
                                {"fuse_unk", false},
                                {"byte_fallback", false},
                                {"ignore_merges", false},
                                {"vocab", vocab},
                                {"merges", read_merges(merges_txt)}};
    const ordered_json file = {{"version", "1.0"},
                               {"truncation", nullptr},
                               {"padding", nullptr},
                               {"added_tokens", ordered_json::array()},
                               {"normalizer", normalizer},
                               {"pre_tokenizer", pre_tokenizer},
                               {"post_processor", nullptr},
                               {"decoder", byte_level(true)},
                               {"model", model}};
    return file.dump();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not a valid vocab.json, a table from tokens to ids: {}", where, json_trouble(error));
  }
}

}  // namespace refract
