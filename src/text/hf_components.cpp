#include "text/hf_components.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "core/untrusted.h"
#include "text/bpe/byte_level.h"
#include "text/hf_settings.h"

namespace refract {
namespace {

using nlohmann::json;

std::string type_of(const json& component, const char* what, const std::string& where) {
  if (!component.is_object() || !component.contains("type")) {
    fail("{}: the {} has no 'type'", where, what);
  }
  return component.at("type").get<std::string>();
}

bool is_absent(const json& object, const char* key) {
  return !object.contains(key) || object.at(key).is_null();
}

SplitBehavior read_behavior(const std::string& name, const std::string& where) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  fail("{}: unknown behavior '{}' of the pre-tokenizer Split", where, shown(name));
}

// `done` is set by ByteLevel, after which the text consists of byte characters and nothing may
// follow.
void append_pre_tokenizer(const json& part, const std::string& where,
                          std::optional<bool> add_prefix_space, PreTokenizer& out, bool& done) {
  const std::string type = type_of(part, "pre-tokenizer", where);
  if (type == "Sequence") {
    for (const json& member : part.at("pretokenizers"))
      append_pre_tokenizer(member, where, add_prefix_space, out, done);
    return;
  }
  if (done) fail("{}: the pre-tokenizer {} after ByteLevel is not supported", where, shown(type));
  if (type == "ByteLevel") {
    if (add_prefix_space.value_or(part.value("add_prefix_space", true))) out.add_prefix_space();
    if (part.value("use_regex", true)) out.add_split(Regex(kGpt2Pattern), SplitBehavior::kIsolated);
    done = true;
  } else if (type == "Split") {
    const json& pattern = part.at("pattern");
    const bool literal = pattern.contains("String");
    const std::string text = pattern.at(literal ? "String" : "Regex").get<std::string>();
    out.add_split(Regex(text, literal), read_behavior(part.at("behavior"), where),
                  part.value("invert", false));
  } else if (type == "Digits") {
    out.add_split(Regex(R"(\p{N})"), part.value("individual_digits", false)
                                         ? SplitBehavior::kIsolated
                                         : SplitBehavior::kContiguous);
  } else {
    fail("{}: the pre-tokenizer {} is not supported (ByteLevel, Split, Digits and Sequence are)",
         where, shown(type));
  }
}

// "a b" or ["a", "b"].
std::pair<std::string, std::string> read_merge(const json& merge, const std::string& where) {
  if (merge.is_array() && merge.size() == 2) return {merge[0], merge[1]};
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail("{}: {} is not a merge of two tokens", where, shown(merge));
}

void check_bpe_settings(const json& model, const std::string& where) {
  const std::string type = model.value("type", "BPE");
  if (type != "BPE") fail("{}: the model {} is not supported (BPE is)", where, shown(type));
  if (!model.contains("merges") || !model.contains("vocab")) {
    fail("{}: the model lacks 'vocab' or 'merges'", where);
  }
  if (!is_absent(model, "dropout") && model.at("dropout").get<double>() > 0) {
    fail("{}: BPE dropout is not supported; set model.dropout to null", where);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!is_absent(model, key) && !model.at(key).get_ref<const std::string&>().empty()) {
      fail("{}: model.{} is not supported", where, key);
    }
  }
}

}  // namespace

bool read_normalizer(const json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return false;
  const std::string type = type_of(normalizer, "normalizer", where);
  if (type == "NFC") return true;
  if (type != "Sequence") {
    fail("{}: the normalizer {} is not supported (NFC and none are)", where, shown(type));
  }
  bool nfc = false;
  for (const json& member : normalizer.at("normalizers")) nfc |= read_normalizer(member, where);
  return nfc;
}

PreTokenizer read_pre_tokenizer(const json& pre_tokenizer, const std::string& where,
                                std::optional<bool> add_prefix_space) {
  PreTokenizer out;
  bool done = false;
  if (!pre_tokenizer.is_null())
    append_pre_tokenizer(pre_tokenizer, where, add_prefix_space, out, done);
  if (!done) fail("{}: only byte-level BPE is supported, and no pre-tokenizer is ByteLevel", where);
  return out;
}

void check_decoder(const json& decoder, const std::string& where) {
  if (decoder.is_null()) return;
  const std::string type = type_of(decoder, "decoder", where);
  if (type != "ByteLevel")
    fail("{}: the decoder {} is not supported (ByteLevel is)", where, shown(type));
}

bool falls_back_to_bytes(const json& model) {
  return model.is_object() && model.value("byte_fallback", json()) == json(true);
}

BpeParts read_bpe(const json& model, const std::string& where) {
  check_bpe_settings(model, where);
  BpeParts parts;
  parts.options.characters = falls_back_to_bytes(model);
  const json& vocab = model.at("vocab");
  // Ids may have gaps, but memory is taken up to the largest: not on the word of one entry.
  const auto largest = static_cast<int64_t>(4 * vocab.size() + 100'000);
  for (const auto& [token, id] : vocab.items()) {
    const auto value = id.get<int64_t>();
    if (value < 0 || value > largest) {
      fail("{}: token '{}' has the id {}, but a vocabulary of {} has none above {}", where,
           shown(token), value, vocab.size(), largest);
    }
    parts.vocabulary.emplace(token, static_cast<TokenId>(value));
    if (parts.options.characters) {
      parts.byte_vocabulary.emplace(token, static_cast<TokenId>(value));
    } else if (auto bytes = characters_to_bytes(token)) {
      parts.byte_vocabulary.emplace(std::move(*bytes), static_cast<TokenId>(value));
    }
  }
  const auto id_of = [&](const std::string& token) {
    const auto found = parts.vocabulary.find(token);
    if (found == parts.vocabulary.end()) {
      fail("{}: the token '{}' of the merges is not in the vocabulary", where, shown(token));
    }
    return found->second;
  };
  for (const json& merge : model.at("merges")) {
    const auto [left, right] = read_merge(merge, where);
    parts.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
  parts.options.ignore_merges = model.value("ignore_merges", false);
  parts.options.fuse_unknown = model.value("fuse_unk", false);
  if (!is_absent(model, "unk_token")) {
    // Named but not in the vocabulary: `tokenizers` fails once it needs it, which a full alphabet
    // never does.
    const auto found = parts.vocabulary.find(model.at("unk_token").get<std::string>());
    if (found != parts.vocabulary.end()) parts.options.unknown = found->second;
  }
  return parts;
}

std::vector<AddedToken> read_added_tokens(const json& added_tokens, const std::string& where) {
  std::vector<AddedToken> tokens;
  std::unordered_set<std::string> seen;
  for (const json& entry : added_tokens) {
    AddedToken token = read_added_token(entry, where);
    if (token.content.empty()) continue;
    if (!seen.insert(token.content).second)
      fail("{}: the added token '{}' is listed twice", where, shown(token.content));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace refract
