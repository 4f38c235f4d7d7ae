// Which tokens the files beside a tokenizer name. The tests against transformers itself are in
// tests/parity/test_model_folders.py.
#include "text/hf_settings.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/errors.h"

namespace refract {
namespace hf_settings_test {

using nlohmann::json;

TokenizerSettings read(const std::map<std::string, json>& files, const std::string& config = "") {
  TokenizerFiles texts;
  for (const auto& [name, tree] : files) texts[name] = tree.dump();
  return read_tokenizer_settings(texts, config, "here");
}

std::vector<std::string> contents(const std::vector<AddedToken>& tokens) {
  std::vector<std::string> all;
  for (const AddedToken& token : tokens) all.push_back(token.content);
  return all;
}

using Names = std::vector<std::string>;

TEST(TokenizerSettings, TheDecoderTableReplacesTheOlderFiles) {
  const json decoder = {{"11", {{"content", "<b>"}, {"special", true}}},
                        {"9", {{"content", "<a>"}, {"lstrip", true}}}};
  const json older = {{"<old>", 12}};
  const auto with = read({{"tokenizer_config.json", {{"added_tokens_decoder", decoder}}},
                          {"added_tokens.json", older},
                          {"special_tokens_map.json", {{"pad_token", "<p>"}}}});
  EXPECT_EQ(contents(with.added), (Names{"<a>", "<b>"}));  // by id, not by text
  EXPECT_TRUE(with.added[0].lstrip && with.added[0].normalized && !with.added[0].special);
  EXPECT_TRUE(with.added[1].special && !with.added[1].normalized);
  const auto without =
      read({{"added_tokens.json", older}, {"special_tokens_map.json", {{"pad_token", "<p>"}}}});
  EXPECT_EQ(contents(without.added), (Names{"<old>", "<p>"}));
  EXPECT_FALSE(without.added[0].special);
  EXPECT_TRUE(without.added[1].special);
}

TEST(TokenizerSettings, SpecialTokensComeAsTextAsTablesAndInLists) {
  const auto settings =
      read({{"tokenizer_config.json",
             {{"eos_token", {{"content", "<e>"}, {"rstrip", true}}}, {"image_token", "<i>"}}},
            {"special_tokens_map.json",
             {{"bos_token", "<s>"}, {"additional_special_tokens", {"<x>"}}}}});
  EXPECT_EQ(contents(settings.added), (Names{"<s>", "<e>", "<i>", "<x>"}));
  EXPECT_TRUE(settings.added[1].rstrip);
  EXPECT_EQ(settings.end_of_text, "<e>");
  EXPECT_EQ(read({{"tokenizer_config.json", {{"eos_token", nullptr}}}}).end_of_text, std::nullopt);
}

TEST(TokenizerSettings, TheClassComesFromTheTokenizerElseFromTheModel) {
  const auto named = [](const json& config, const std::string& model) {
    return read({{"tokenizer_config.json", config}}, model).tokenizer_class;
  };
  const std::string gpt2 = R"({"model_type": "gpt2"})";
  EXPECT_EQ(named(json::object(), gpt2), "GPT2Tokenizer");
  EXPECT_EQ(named({{"tokenizer_class", "Qwen2TokenizerFast"}}, gpt2), "Qwen2Tokenizer");
  EXPECT_EQ(named({{"tokenizer_class", "PreTrainedTokenizerFast"}}, gpt2), "");
  EXPECT_EQ(named(json::object(), R"({"tokenizer_class": "GPTNeoXTokenizer"})"),
            "GPTNeoXTokenizer");
  EXPECT_EQ(named(json::object(), R"({"model_type": "llama"})"), "");
  EXPECT_TRUE(sets_prefix_space("GPT2Tokenizer"));
  EXPECT_FALSE(sets_prefix_space(""));
}

TEST(TokenizerSettings, WhatAClassImpliesCountsOnlyWhereTheVocabularyHasIt) {
  const auto settings = read({}, R"({"model_type": "gpt2"})");
  EXPECT_TRUE(settings.added.empty());
  for (const bool known : {false, true}) {
    const auto lookup = [&](const std::string& token) -> std::optional<TokenId> {
      return known && token == "<|endoftext|>" ? std::optional(7) : std::nullopt;
    };
    AddedVocabulary vocabulary(lookup, 10);
    const auto end = add_special_tokens(settings, vocabulary);
    EXPECT_EQ(end.has_value(), known);
    EXPECT_EQ(vocabulary.tokens().size(), known ? 1u : 0u);
  }
}

TEST(TokenizerSettings, DamagedFilesAreNamed) {
  const auto error = [](const std::map<std::string, json>& files) {
    return testing::error_of([&] { read(files); });
  };
  EXPECT_NE(error({{"special_tokens_map.json", json::array()}}).find("special_tokens_map.json"),
            std::string::npos);
  EXPECT_NE(error({{"added_tokens.json", {{"<a>", "one"}}}}).find("<a>"), std::string::npos);
  EXPECT_NE(
      error({{"tokenizer_config.json", {{"added_tokens_decoder", {{"x", {{"content", "y"}}}}}}}})
          .find("'x'"),
      std::string::npos);
  EXPECT_NE(error({{"tokenizer_config.json", {{"added_tokens_decoder", {{"3", "y"}}}}}})
                .find("no content"),
            std::string::npos);
}

TEST(AddedVocabulary, NewTokensGetTheNextIds) {
  const auto lookup = [](const std::string& token) -> std::optional<TokenId> {
    return token == "in" ? std::optional(3) : std::nullopt;
  };
  AddedVocabulary vocabulary(lookup, 5);
  for (const char* content : {"in", "a", "", "b", "a"}) {
    AddedToken token;
    token.content = content;
    vocabulary.add(token);
  }
  EXPECT_EQ(contents(vocabulary.tokens()), (Names{"in", "a", "b"}));
  EXPECT_EQ(vocabulary.find("in"), 3);
  EXPECT_EQ(vocabulary.find("a"), 5);
  EXPECT_EQ(vocabulary.find("b"), 6);
  EXPECT_EQ(vocabulary.find("c"), std::nullopt);
  AddedToken special;
  special.content = "a";
  special.special = special.lstrip = true;
  vocabulary.add(special);
  EXPECT_TRUE(vocabulary.tokens()[1].lstrip);
  EXPECT_EQ(vocabulary.find("a"), 5);
}

}  // namespace hf_settings_test
}  // namespace refract
