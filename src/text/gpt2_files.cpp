#include "text/gpt2_files.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/json_trouble.h"

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

}  // namespace

std::string gpt2_tokenizer_json(std::string_view vocab_json, std::string_view merges_txt,
                                const std::string& where) {
  try {
    const auto vocab = nlohmann::json::parse(vocab_json);
    const ordered_json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", true}};
    ordered_json added = ordered_json::array();
    if (const auto end = vocab.find("<|endoftext|>"); end != vocab.end()) {
      added.push_back({{"id", *end},
                       {"content", "<|endoftext|>"},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
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
    const ordered_json file = {
        {"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
        {"added_tokens", added},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
        {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
    return file.dump();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not a valid vocab.json: {}", where, json_trouble(error));
  }
}

}  // namespace refract
