#include "text/hf_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/errors.h"

namespace refract {
namespace hf_tokenizer_test {

using nlohmann::json;
using Ids = std::vector<TokenId>;

// Bytes a to e, then what merges make of them.
json small_file() {
  json file = json::parse(R"({
    "added_tokens": [],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "unk_token": null, "ignore_merges": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "Ġ": 4, "ab": 5, "bc": 6, "abc": 7, "aa": 8, "Ġa": 9, "xyz": 10},
      "merges": ["a b", "b c", ["ab", "c"], "a a", "Ġ a"]}})");
  return file;
}

std::unique_ptr<Tokenizer> open(const json& file) {
  return make_hf_tokenizer({{"tokenizer.json", file.dump()}}, "test.json");
}

std::string error_of(const json& file) {
  return testing::error_of([&] { open(file); });
}

json added(const std::string& content, bool special = true) {
  return {{"id", 0},         {"content", content}, {"special", special}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
}

TEST(HfTokenizer, MergesByRankThenFromTheLeft) {
  const auto tokenizer = open(small_file());
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{7}));
  EXPECT_EQ(tokenizer->encode("bcabc"), (Ids{6, 7}));
  EXPECT_EQ(tokenizer->encode("aaaaab"), (Ids{8, 8, 5}));
  EXPECT_EQ(tokenizer->encode("aaa"), (Ids{8, 0}));
  EXPECT_EQ(tokenizer->encode("d a"), (Ids{3, 9}));
  EXPECT_EQ(tokenizer->encode("azb"),
            (Ids{5}));  // a byte without a token is dropped, as `tokenizers` does
  EXPECT_EQ(tokenizer->vocab_size(), 11);
  EXPECT_EQ(tokenizer->end_of_text(), std::nullopt);
}

// Short and long words go through different algorithms; both must follow the definition: merge the
// leftmost pair of the lowest rank until none is left.
TEST(HfTokenizer, LongWordsMergeLikeShortOnes) {
  json file = small_file();
  file["model"]["vocab"] = {{"a", 0}, {"b", 1}};
  file["model"]["merges"] = json::array();
  std::vector<std::string> tokens{"a", "b"};
  uint32_t state = 7;
  const auto random = [&](size_t n) {
    state = state * 1664525u + 1013904223u;
    return static_cast<size_t>(state >> 16) % n;
  };
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  while (ranks.size() < 60) {
    const std::string left = tokens[random(tokens.size())], right = tokens[random(tokens.size())];
    if (left.size() + right.size() > 12 ||
        !ranks.emplace(std::pair{left, right}, ranks.size()).second) {
      continue;
    }
    if (!file["model"]["vocab"].contains(left + right)) {
      file["model"]["vocab"][left + right] = tokens.size();
      tokens.push_back(left + right);
    }
    file["model"]["merges"].push_back({left, right});
  }
  const auto tokenizer = open(file);
  for (size_t length = 1; length < 300; length += 1 + length / 20) {
    std::string word;
    for (size_t i = 0; i < length; ++i) word += random(2) ? 'a' : 'b';
    std::vector<std::string> symbols;
    for (const char c : word) symbols.emplace_back(1, c);
    for (;;) {
      size_t best_rank = ranks.size(), best = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = ranks.find({symbols[i], symbols[i + 1]});
        if (found != ranks.end() && found->second < best_rank) {
          best_rank = found->second;
          best = i;
        }
      }
      if (best_rank == ranks.size()) break;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    Ids expected;
    for (const auto& symbol : symbols) expected.push_back(file["model"]["vocab"][symbol]);
    ASSERT_EQ(tokenizer->encode(word), expected) << word;
    ASSERT_EQ(tokenizer->encode(word), expected) << "from the cache: " << word;
  }
}

TEST(HfTokenizer, UnknownTokenAndIgnoreMerges) {
  json file = small_file();
  file["model"]["unk_token"] = "xyz";
  EXPECT_EQ(open(file)->encode("azzb"), (Ids{0, 10, 10, 1}));
  file["model"]["fuse_unk"] = true;
  EXPECT_EQ(open(file)->encode("azzb"), (Ids{0, 10, 1}));
  file["model"]["unk_token"] = nullptr;
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(open(file)->encode("xyz"), (Ids{10}));
}

TEST(HfTokenizer, SpecialTokensAreFoundOnRequest) {
  json file = small_file();
  file["added_tokens"] = {added("<|endoftext|>"), added("cd", false)};
  const auto tokenizer = open(file);
  EXPECT_EQ(tokenizer->end_of_text(), 11);
  EXPECT_EQ(tokenizer->vocab_size(), 13);
  EXPECT_EQ(tokenizer->encode("ab<|endoftext|>cd"), (Ids{5, 11, 12}));
  // Only d of "endoftext" has a token; "cd" is added but not special.
  EXPECT_EQ(tokenizer->encode("ab<|endoftext|>cd", false), (Ids{5, 3, 12}));
  EXPECT_EQ(tokenizer->decode(Ids{7, 11, 12, 99, -1}), "abc<|endoftext|>cd\uFFFD\uFFFD");
}

TEST(HfTokenizer, EndOfTextComesFromTheConfig) {
  json file = small_file();
  file["added_tokens"] = {added("<|endoftext|>"), added("<stop>")};
  const auto with = [&](const json& config) {
    return make_hf_tokenizer(
        {{"tokenizer.json", file.dump()}, {"tokenizer_config.json", config.dump()}}, "test");
  };
  EXPECT_EQ(with({{"eos_token", "<stop>"}})->end_of_text(), 12);
  EXPECT_EQ(with({{"eos_token", {{"content", "<stop>"}}}})->end_of_text(), 12);
  EXPECT_EQ(with({{"eos_token", nullptr}})->end_of_text(), 11);
  EXPECT_EQ(with({{"eos_token", "<new>"}})->end_of_text(), 13);  // as transformers adds it
}

// As a SentencePiece model of Mistral or Llama 2 is translated: é has no token, and only its bytes
// do.
json character_file() {
  return json::parse(R"({
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
    "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "fuse_unk": true,
      "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6, "ab": 7},
      "merges": ["▁ a", "a b"]}})");
}

TEST(HfTokenizer, CharactersFallBackToTheirBytes) {
  const auto tokenizer = open(character_file());
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{6, 5, 6}));
  EXPECT_EQ(tokenizer->encode("bab"), (Ids{3, 5, 7}));
  EXPECT_EQ(tokenizer->encode("a\u00e9b"), (Ids{6, 1, 2, 5}));
  EXPECT_EQ(tokenizer->encode("a\u20acxb"), (Ids{6, 0, 5}));  // no bytes for these two
  EXPECT_EQ(tokenizer->encode(""), Ids{});
  EXPECT_EQ(tokenizer->decode(Ids{6, 1, 2, 5}), "a\u00e9b");
  EXPECT_EQ(tokenizer->decode(Ids{3, 3, 6}), "  a");  // one space is the tokenizer's own
  EXPECT_EQ(tokenizer->description(), "character BPE (8)");
}

TEST(HfTokenizer, ACharacterTokenizerRefusesWhatItDoesNotKnowByName) {
  const auto expect = [](const char* pointer, const json& value, const std::string& name) {
    json file = character_file();
    file[json::json_pointer(pointer)] = value;
    EXPECT_TRUE(testing::has(error_of(file), name)) << pointer;
  };
  expect("/normalizer", {{"type", "NFKC"}}, "NFKC");
  expect("/normalizer/normalizers/0/prepend", "_", "Prepend");
  expect("/normalizer/normalizers/1/content", "_", "Replace");
  expect("/pre_tokenizer", {{"type", "Whitespace"}}, "Whitespace");
  expect("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}}, "Metaspace");
  expect("/decoder", {{"type", "Metaspace"}}, "Metaspace");
  expect("/decoder/decoders/3/start", 2, "Strip");
}

TEST(HfTokenizer, RefusesWhatItDoesNotKnowByName) {
  const auto expect = [](const char* pointer, const json& value, const std::string& name) {
    json file = small_file();
    file[json::json_pointer(pointer)] = value;
    const std::string error = error_of(file);
    EXPECT_NE(error.find(name), std::string::npos) << pointer << " -> " << error;
    EXPECT_EQ(error.find("test.json"), 0u) << error;
  };
  expect("/normalizer", {{"type", "Lowercase"}}, "Lowercase");
  expect("/pre_tokenizer", {{"type", "Metaspace"}}, "Metaspace");
  expect("/pre_tokenizer", nullptr, "ByteLevel");
  expect("/decoder", {{"type", "WordPiece"}}, "WordPiece");
  expect("/model/type", "Unigram", "Unigram");
  expect("/model/byte_fallback", true, "ByteLevel");
  expect("/model/dropout", 0.1, "dropout");
  expect("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  expect("/model/merges/0", "a b c", "a b c");
  expect("/model/merges/0", {"a", "q"}, "'q'");
  expect("/model/vocab", 3, "");
  expect("/added_tokens", {added("x"), added("x")}, "twice");
  EXPECT_THROW(make_hf_tokenizer({{"tokenizer.json", "{"}}, "test.json"), Error);
}

}  // namespace hf_tokenizer_test
}  // namespace refract
