#include "text/gguf/gguf_tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <span>

#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "support/errors.h"
#include "support/gguf_file.h"
#include "support/temporary_folder.h"
#include "text/gguf/write_tokenizer.h"

namespace refract {
namespace gguf_tokenizer_test {

using testing::expect_error;
using testing::GgufFile;
using testing::TemporaryFolder;

GgufFile byte_level(const std::string& pre = "smollm") {
  GgufFile file;
  file.text("tokenizer.ggml.model", "gpt2");
  if (!pre.empty()) file.text("tokenizer.ggml.pre", pre);
  file.texts("tokenizer.ggml.tokens",
             {"<|end|>", "a", "b", "1", "2", "\u0120", "ab", "\u0120a", "12", "<think>"});
  file.list<int32_t>("tokenizer.ggml.token_type", 5, {3, 1, 1, 1, 1, 1, 1, 1, 1, 4});
  file.texts("tokenizer.ggml.merges", {"a b", "\u0120 a", "1 2"});
  file.whole("tokenizer.ggml.bos_token_id", 0);
  file.whole("tokenizer.ggml.eos_token_id", 0);
  file.text("tokenizer.chat_template", "{{ messages }}");
  return file;
}

// 3 to 258 are the bytes, 259 is the space.
constexpr TokenId kByteA = 3 + 'A', kCat = 264, kSpaceCat = 265, kPieces = 266;

GgufFile pieces() {
  GgufFile file;
  file.text("tokenizer.ggml.model", "llama");
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  std::vector<float> scores(259);
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(6);
  }
  for (const char* piece : {"\u2581", "c", "a", "t", "at", "cat", "\u2581cat"}) {
    tokens.emplace_back(piece);
    types.push_back(1);
  }
  for (const float score : {-9.0F, -8.0F, -7.0F, -6.0F, -1.0F, -2.0F, -3.0F})
    scores.push_back(score);
  file.texts("tokenizer.ggml.tokens", tokens);
  file.list<int32_t>("tokenizer.ggml.token_type", 5, types);
  file.list<float>("tokenizer.ggml.scores", 6, scores);
  file.whole("tokenizer.ggml.bos_token_id", 1);
  file.whole("tokenizer.ggml.eos_token_id", 2);
  file.whole("tokenizer.ggml.unknown_token_id", 0);
  return file;
}

std::unique_ptr<Tokenizer> open(const GgufFile& file) {
  const TemporaryFolder folder;
  testing::write_text(folder / "x.gguf", file.bytes());
  return open_tokenizer(folder.str("x.gguf"));
}

using Ids = std::vector<TokenId>;

TEST(GgufTokenizer, OpensByteLevelBpe) {
  const auto tokenizer = open(byte_level());
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(tokenizer->encode("ab ab12<|end|><think>"), (Ids{6, 5, 6, 3, 4, 0, 9}))
      << "every digit stands apart";
  EXPECT_EQ(tokenizer->decode(Ids{6, 7, 2}), "ab ab");
  EXPECT_EQ(tokenizer->end_of_text(), 0);
}

TEST(GgufTokenizer, CutsTextAsThePreTokenizerSays) {
  EXPECT_EQ(open(byte_level("gpt-2"))->encode("12"), (Ids{8}));
  EXPECT_EQ(open(byte_level("llama-bpe"))->encode("12"), (Ids{8}));
  EXPECT_EQ(open(byte_level("qwen2"))->encode("12"), (Ids{3, 4}));
  EXPECT_EQ(open(byte_level(""))->encode("12"), (Ids{8})) << "as GPT-2 where nothing is said";
  expect_error([] { open(byte_level("tekken")); }, {"tekken", "smollm", "data.tokenizer"});
}

TEST(GgufTokenizer, SavesWhatAFolderHas) {
  const TemporaryFolder folder;
  open(byte_level())->save(folder.path());
  const auto again = open_tokenizer(folder.path().string());
  EXPECT_EQ(again->encode("ab ab12<|end|>"), (Ids{6, 5, 6, 3, 4, 0}));
  EXPECT_EQ(again->end_of_text(), 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "chat_template.jinja"));
}

TEST(GgufTokenizer, TakesTheWholeTokenizerWhereThereIsOne) {
  GgufFile file = byte_level("unheard-of");
  const TemporaryFolder folder;
  open(byte_level("gpt-2"))->save(folder.path());
  const std::string whole = read_file(folder / "tokenizer.json");
  file.text("tokenizer.huggingface.json", whole);
  EXPECT_EQ(open(file)->encode("12"), (Ids{8}));
}

TEST(GgufTokenizer, OpensSentencePiece) {
  const auto tokenizer = open(pieces());
  EXPECT_EQ(tokenizer->vocab_size(), kPieces);
  EXPECT_EQ(tokenizer->encode("cat"), (Ids{kSpaceCat}));
  EXPECT_EQ(tokenizer->encode("catA"), (Ids{kSpaceCat, kByteA})) << "A has no piece but its byte";
  EXPECT_EQ(tokenizer->encode("</s>cat"), (Ids{2, kCat})) << "a control token in the text";
  EXPECT_EQ(tokenizer->decode(Ids{kSpaceCat, kByteA}), "catA");
  EXPECT_EQ(tokenizer->end_of_text(), 2);
  GgufFile plain = pieces();
  plain.flag("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(open(plain)->encode("cat"), (Ids{kCat}));
}

TEST(GgufTokenizer, NamesWhatIsWrong) {
  struct Broken {
    std::function<GgufFile()> make;
    std::vector<std::string> says;
  };
  const auto bpe_with = [](const std::function<void(GgufFile&)>& change) {
    return [change] {
      GgufFile file;
      file.text("tokenizer.ggml.model", "gpt2");
      file.text("tokenizer.ggml.pre", "gpt-2");
      change(file);
      return file;
    };
  };
  const std::vector<Broken> all = {
      {[] {
         GgufFile file;
         file.text("tokenizer.ggml.model", "rwkv");
         return file;
       },
       {"rwkv", "gpt2"}},
      {bpe_with([](GgufFile&) {}), {"tokenizer.ggml.tokens"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "b", "ab"});
       }),
       {"no tokenizer.ggml.merges", "data.tokenizer"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "a"});
         f.texts("tokenizer.ggml.merges", {});
       }),
       {"tokens 0 and 1", "'a'"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "\xff"});
       }),
       {"token 1", "\\xff"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "b"});
         f.list<int32_t>("tokenizer.ggml.token_type", 5, {1});
       }),
       {"token_type", "2 kinds"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "b"});
         f.texts("tokenizer.ggml.merges", {"a c"});
       }),
       {"'c'", "merges"}},
      {bpe_with([](GgufFile& f) {
         f.texts("tokenizer.ggml.tokens", {"a", "b"});
         f.texts("tokenizer.ggml.merges", {});
         f.whole("tokenizer.ggml.eos_token_id", 2);
       }),
       {"eos_token_id", "0 to 1"}},
      {[] {
         GgufFile file;
         file.text("tokenizer.ggml.model", "llama");
         file.texts("tokenizer.ggml.tokens", {"a", "b"});
         file.list<float>("tokenizer.ggml.scores", 6, {1});
         return file;
       },
       {"scores", "2 numbers"}},
      {[] {
         GgufFile file = pieces();
         file.settings.erase(file.settings.begin() + 2);
         return file;
       },
       {"token_type"}},
  };
  for (const Broken& broken : all) {
    const std::string message = testing::error_of([&] { open(broken.make()); });
    for (const std::string& part : broken.says) EXPECT_TRUE(testing::has(message, part));
  }
  GgufFile none;
  none.text("tokenizer.ggml.model", "none");
  expect_error([&] { open(none); }, {"holds no tokenizer"});
}

TokenizerFiles files_of(const Tokenizer& tokenizer) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "t");
  tokenizer.save(folder / "t");
  TokenizerFiles files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "t"))
    files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

// Through the settings of a file and back.
std::unique_ptr<Tokenizer> written(const Tokenizer& tokenizer, int64_t vocab_size) {
  const TokenId end = tokenizer.end_of_text().value();
  const TokenizerFiles files = files_of(tokenizer);
  GgufMetadataWriter settings;
  EXPECT_EQ(add_gguf_tokenizer(settings, files, vocab_size), "");
  settings.add_whole("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(end));
  GgufFile file;
  file.counts[1] = static_cast<int64_t>(settings.count());
  file.settings.push_back(settings.bytes());
  return open(file);
}

TEST(GgufTokenizer, ComesBackAsItWasWritten) {
  const auto bpe = open(byte_level()), sentencepiece = open(pieces());
  for (const std::string text : {"ab ab12<|end|>", "a12 ba<think>"})
    EXPECT_EQ(written(*bpe, 12)->encode(text), bpe->encode(text));
  EXPECT_EQ(written(*bpe, 12)->vocab_size(), 10) << "its own, whatever the model has";
  for (const std::string text : {"cat catA", "</s>cat"})
    EXPECT_EQ(written(*sentencepiece, kPieces)->encode(text), sentencepiece->encode(text));
}

TEST(GgufTokenizer, KeepsTheSpaceThatLegacyPutsBehindSpecialTokens) {
  GgufFile file = pieces();
  file.flag("refract.tokenizer.legacy", true);
  const auto legacy = open(file);
  EXPECT_EQ(legacy->encode("</s>cat"), (Ids{2, kSpaceCat}));
  EXPECT_EQ(written(*legacy, kPieces)->encode("</s>cat"), (Ids{2, kSpaceCat}));
  EXPECT_EQ(written(*open(pieces()), kPieces)->encode("</s>cat"), (Ids{2, kCat}));
}

// What a tokenizer.json beside the model says of that space.
TEST(GgufTokenizer, SaysWhatSpacesItCanNotHold) {
  struct Case {
    const char *front, *space_prefix, *note;
    bool legacy;
  };
  const std::vector<Case> all = {
      {"null", "true", "behind every special token", false},
      {R"({"type": "Metaspace"})", "true", "", true},
      {R"({"type": "Metaspace", "prepend_scheme": "first"})", "true", "", false},
      {R"({"type": "Metaspace", "prepend_scheme": "never"})", "false", "", false}};
  TokenizerFiles files = files_of(*open(pieces()));
  files["tokenizer_config.json"] = R"({"eos_token": "</s>"})";
  for (const Case& one : all) {
    SCOPED_TRACE(one.front);
    files["tokenizer.json"] =
        fmt::format(R"({{"model": {{"type": "Unigram"}}, "pre_tokenizer": {}}})", one.front);
    GgufMetadataWriter settings;
    const std::string note = add_gguf_tokenizer(settings, files, kPieces);
    EXPECT_TRUE(*one.note == '\0' ? note.empty() : testing::has(note, one.note)) << note;
    GgufFile file;
    file.counts[1] = static_cast<int64_t>(settings.count());
    file.settings.push_back(settings.bytes());
    const std::string bytes = file.bytes();
    const GgufHeader header =
        read_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf");
    EXPECT_EQ(header.settings.flag("refract.tokenizer.legacy", false), one.legacy);
    EXPECT_EQ(header.settings.flag("tokenizer.ggml.add_space_prefix", false),
              std::string(one.space_prefix) == "true");
  }
}

TEST(GgufTokenizer, WithoutTheWholeTokenizerTheTokensSayTheSame) {
  const TemporaryFolder folder;
  open(byte_level())->save(folder.path());
  GgufMetadataWriter settings;
  add_gguf_tokenizer(settings, {{"tokenizer.json", read_file(folder / "tokenizer.json")}}, 12);
  GgufFile file;
  file.counts[1] = static_cast<int64_t>(settings.count());
  file.settings.push_back(settings.bytes());
  const std::string bytes = file.bytes();
  const GgufHeader header =
      read_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf");
  EXPECT_EQ(header.settings.text("tokenizer.ggml.pre", ""), "smollm");
  EXPECT_EQ(header.settings.texts("tokenizer.ggml.tokens")[11], "[PAD11]");
  EXPECT_EQ(header.settings.wholes("tokenizer.ggml.token_type"),
            (std::vector<int64_t>{3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 5, 5}));
  EXPECT_EQ(header.settings.texts("tokenizer.ggml.merges"),
            (std::vector<std::string_view>{"a b", "\u0120 a", "1 2"}));
}

}  // namespace gguf_tokenizer_test
}  // namespace refract
