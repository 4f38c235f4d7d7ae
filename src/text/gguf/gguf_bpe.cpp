#include "text/gguf/gguf_bpe.h"

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/untrusted.h"
#include "text/gguf/gguf_tokenizer.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::ordered_json;

// By hand, in the order of the ids: of a hundred thousand entries a JSON tree takes seconds.
std::string vocab_json(const GgufVocabulary& vocabulary, const std::string& where) {
  std::unordered_map<std::string_view, size_t> ids;
  std::string text = "{";
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string_view token = vocabulary.tokens[i];
    const auto [known, fresh] = ids.emplace(token, i);
    if (!fresh)
      fail("'{}': the tokens {} and {} are both '{}'", where, known->second, i, shown(token));
    if (i > 0) text += ',';
    text += ordered_json(std::string(token)).dump();
    text += ':';
    text += std::to_string(i);
  }
  text += '}';
  return text;
}

std::string merges_json(const GgufVocabulary& vocabulary, const std::string& where) {
  std::string text = "[";
  for (const std::string_view merge : vocabulary.merges) {
    if (!is_valid_utf8(merge)) fail("'{}': the merge '{}' is not in UTF-8", where, shown(merge));
    if (text.size() > 1) text += ',';
    text += ordered_json(std::string(merge)).dump();
  }
  text += ']';
  return text;
}

ordered_json added_tokens(const GgufVocabulary& vocabulary) {
  ordered_json added = ordered_json::array();
  for (size_t i = 0; i < vocabulary.types.size(); ++i) {
    const int64_t type = vocabulary.types[i];
    if (type != kGgufControl && type != kGgufUserDefined) continue;
    added.push_back({{"id", i},
                     {"content", std::string(vocabulary.tokens[i])},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type == kGgufControl}});
  }
  return added;
}

// Puts the first token before every text.
ordered_json post_processor(const GgufVocabulary& vocabulary, const std::string& first) {
  if (first.empty()) return nullptr;
  size_t id = 0;
  while (vocabulary.tokens[id] != first) ++id;
  const ordered_json token = {{"SpecialToken", {{"id", first}, {"type_id", 0}}}};
  const auto text = [](const char* name, int type) {
    return ordered_json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const ordered_json second = {{"SpecialToken", {{"id", first}, {"type_id", 1}}}};
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json::array({token, text("A", 0)})},
          {"pair", ordered_json::array({token, text("A", 0), second, text("B", 1)})},
          {"special_tokens",
           {{first,
             {{"id", first},
              {"ids", ordered_json::array({id})},
              {"tokens", ordered_json::array({first})}}}}}};
}

}  // namespace

std::string gguf_bpe_json(const GgufVocabulary& vocabulary, const GgufFront& front,
                          const std::string& first, const std::string& where) {
  const ordered_json decoder = {{"type", "ByteLevel"},
                                {"add_prefix_space", true},
                                {"trim_offsets", true},
                                {"use_regex", true}};
  std::string text = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":)";
  text += added_tokens(vocabulary).dump();
  text += ",\"normalizer\":" + front.normalizer;
  text += ",\"pre_tokenizer\":" + front.pre_tokenizer;
  text += ",\"post_processor\":" + post_processor(vocabulary, first).dump();
  text += ",\"decoder\":" + decoder.dump();
  text += R"(,"model":{"type":"BPE","dropout":null,"unk_token":null,)";
  text += R"("continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,)";
  text += R"("byte_fallback":false,"ignore_merges":)";
  text += front.ignore_merges ? "true" : "false";
  text += ",\"vocab\":" + vocab_json(vocabulary, where);
  text += ",\"merges\":" + merges_json(vocabulary, where);
  text += "}}";
  return text;
}

}  // namespace refract
