#include "core/gguf/gguf_header.h"

#include <gtest/gtest.h>

#include <functional>
#include <span>

#include "support/errors.h"
#include "support/gguf_file.h"
#include "support/temporary_folder.h"

namespace refract {
namespace gguf_header_test {

using testing::expect_error;
using testing::gguf_text;
using testing::GgufFile;
using testing::raw;

GgufHeader read(const std::string& bytes) {
  return read_gguf_header(std::as_bytes(std::span(bytes.data(), bytes.size())), "x.gguf");
}

GgufFile honest() {
  GgufFile file;
  file.text("general.architecture", "llama");
  file.whole("llama.block_count", 2);
  file.number("llama.eps", 1e-5F);
  file.flag("flag", true);
  file.set("u64", 10, raw(uint64_t{7}));
  file.set("i8", 1, raw(int8_t{-3}));
  file.set("f64", 12, raw(2.5));
  file.texts("tokens", {"a", "", "bc"});
  file.list<int32_t>("kinds", 5, {1, -2, 3});
  file.list<float>("scores", 6, {0.5F, -1});
  file.floats("a", {3, 2}, {1, 2, 3, 4, 5, 6});
  file.tensors.push_back({"b", {32, 4}, 8, std::string(4 * 34, '\1')});
  return file;
}

TEST(GgufHeader, ReadsEveryKindOfSetting) {
  const std::string bytes = honest().bytes();
  const GgufHeader header = read(bytes);
  const GgufMetadata& settings = header.settings;
  EXPECT_EQ(settings.text("general.architecture", ""), "llama");
  EXPECT_EQ(settings.whole("llama.block_count"), 2);
  EXPECT_EQ(settings.number("llama.eps", 0), 1e-5) << "the decimal that was meant";
  EXPECT_TRUE(settings.flag("flag", false));
  EXPECT_EQ(settings.whole("u64"), 7);
  EXPECT_EQ(settings.whole("i8"), -3);
  EXPECT_EQ(settings.number("f64", 0), 2.5);
  EXPECT_EQ(settings.texts("tokens"), (std::vector<std::string_view>{"a", "", "bc"}));
  EXPECT_EQ(settings.wholes("kinds"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(settings.numbers("scores"), (std::vector<float>{0.5F, -1}));
  EXPECT_EQ(settings.whole("absent", 5), 5);
  EXPECT_TRUE(settings.texts("absent").empty());
  expect_error([&] { settings.whole("absent"); }, {"x.gguf", "absent"});
  expect_error([&] { settings.whole("tokens"); }, {"x.gguf", "tokens", "whole number"});
  expect_error([&] { settings.texts("kinds"); }, {"kinds", "list of texts"});
  expect_error([&] { settings.flag("u64", true); }, {"u64", "true or false"});
}

TEST(GgufHeader, FindsTensorsWithTheirShapesOutermostFirst) {
  const std::string bytes = honest().bytes();
  const GgufHeader header = read(bytes);
  const GgufTensor* a = header.find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a->describe(), "F32 [2, 3]");
  EXPECT_EQ(a->numel(), 6);
  float fourth = 0;
  std::memcpy(&fourth, bytes.data() + a->begin + 12, sizeof(fourth));
  EXPECT_EQ(fourth, 4);
  const GgufTensor* b = header.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->describe(), "Q8_0 [4, 32]");
  EXPECT_EQ(b->end - b->begin, 4u * 34);
  EXPECT_EQ(header.find("c"), nullptr);
}

TEST(GgufHeader, TakesVersionTwoAndOtherAlignments) {
  GgufFile file = honest();
  file.version = 2;
  file.whole("general.alignment", 64);
  file.alignment = 64;
  const std::string bytes = file.bytes();
  const GgufHeader header = read(bytes);
  EXPECT_EQ(header.tensors[0].begin % 64, 0u);
  EXPECT_EQ(header.tensors.size(), 2u);
}

// Cut anywhere, a file is an error of one line; only the padding behind the last tensor may go.
TEST(GgufHeader, EveryTruncationIsNoticed) {
  const std::string whole = honest().bytes();
  const uint64_t needed = read(whole).tensors.back().end;
  for (size_t size = 0; size < needed; ++size)
    expect_error([&] { read(whole.substr(0, size)); }, {"x.gguf"});
  EXPECT_NO_THROW(read(whole.substr(0, needed)));
}

// Whatever a byte of the header is changed to, the result is an Error or tensors inside the file.
TEST(GgufHeader, NoChangedByteLeadsOutOfTheFile) {
  const std::string whole = honest().bytes();
  int refused = 0;
  for (size_t at = 0; at < honest().header().size(); ++at) {
    for (const char value : {'\0', '\1', '\x7f', '\x80', '\xff'}) {
      std::string changed = whole;
      changed[at] = value;
      const std::string message = testing::error_of([&] {
        const GgufHeader header = read(changed);
        for (const GgufTensor& tensor : header.tensors) {
          EXPECT_LE(tensor.begin, tensor.end);
          EXPECT_LE(tensor.end, changed.size()) << "byte " << at;
        }
      });
      refused += message.empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 200);
}

struct Broken {
  const char* name;
  std::function<void(GgufFile&)> change;
  std::vector<std::string> says;
};

std::vector<Broken> broken_files() {
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  return {
      {"a version that is not known", [](GgufFile& f) { f.version = 9; }, {"version 9"}},
      {"the other byte order", [](GgufFile& f) { f.version = 0x03000000; }, {"big-endian"}},
      {"more tensors than fit", [](GgufFile& f) { f.counts[0] = 1 << 30; }, {"more than it can"}},
      {"more settings than fit", [](GgufFile& f) { f.counts[1] = 1 << 30; }, {"more than it can"}},
      {"one setting too many", [](GgufFile& f) { f.counts[1] = 11; }, {"x.gguf"}},
      {"one tensor too many", [](GgufFile& f) { f.counts[0] = 3; }, {"x.gguf"}},
      {"a setting without a name", [](GgufFile& f) { f.whole("", 1); }, {"has 0 bytes"}},
      {"a name of 70,000 bytes",
       [](GgufFile& f) { f.whole(std::string(70000, 'k'), 1); },
       {"has 70000 bytes"}},
      {"a setting twice", [](GgufFile& f) { f.flag("flag", true); }, {"flag", "twice"}},
      {"a kind that is not known",
       [](GgufFile& f) { f.set("odd", 13, raw(1)); },
       {"odd", "kind 13"}},
      {"a flag of 2", [](GgufFile& f) { f.set("odd", 7, "\2"); }, {"odd", "2"}},
      {"a list of lists",
       [](GgufFile& f) { f.set("odd", 9, raw(uint32_t{9}) + raw(uint64_t{0})); },
       {"odd", "list of lists"}},
      {"a list longer than the file",
       [](GgufFile& f) { f.set("odd", 9, raw(uint32_t{10}) + raw(uint64_t{1} << 61)); },
       {"odd", "more than the file holds"}},
      {"a list of texts longer than the file",
       [](GgufFile& f) { f.set("odd", 9, raw(uint32_t{8}) + raw(uint64_t{1} << 61)); },
       {"odd", "more than the file holds"}},
      {"a text longer than the file",
       [](GgufFile& f) { f.set("odd", 8, raw(kHuge) + "abc"); },
       {"odd", "ends within"}},
      {"an alignment of 24",
       [](GgufFile& f) { f.whole("general.alignment", 24); },
       {"general.alignment", "power of two"}},
      {"an alignment of 0",
       [](GgufFile& f) { f.whole("general.alignment", 0); },
       {"general.alignment", "power of two"}},
      {"a tensor without a name", [](GgufFile& f) { f.tensors[0].name = ""; }, {"0 bytes"}},
      {"a long name of a tensor",
       [](GgufFile& f) { f.tensors[0].name = std::string(65, 'n'); },
       {"65 bytes"}},
      {"two tensors of one name",
       [](GgufFile& f) { f.tensors[1].name = "a"; },
       {"two tensors", "'a'"}},
      {"five dimensions",
       [](GgufFile& f) {
         f.tensors[0].sizes = {1, 1, 1, 3, 2};
       },
       {"'a'", "5 dimensions"}},
      {"a size of 0",
       [](GgufFile& f) {
         f.tensors[0].sizes = {0, 2};
       },
       {"'a'", "size 0"}},
      {"a size beyond 2^63",
       [](GgufFile& f) { f.tensors[0].sizes = {~uint64_t{0}}; },
       {"'a'", "dimension of size"}},
      {"a product beyond 2^64",
       [](GgufFile& f) {
         f.tensors[0].sizes = {kHuge, 8};
       },
       {"'a'", "can't be"}},
      {"bytes beyond 2^64", [](GgufFile& f) { f.tensors[0].sizes = {kHuge}; }, {"'a'", "can't be"}},
      {"a type that is not known",
       [](GgufFile& f) { f.tensors[0].type = 99; },
       {"'a'", "type number 99"}},
      {"a row of half a block",
       [](GgufFile& f) {
         f.tensors[1].sizes = {16, 8};
       },
       {"'b'", "whole number of blocks"}},
      {"an offset that is not aligned",
       [](GgufFile& f) { f.tensors[1].offset = 33; },
       {"'b'", "multiple of the alignment 32"}},
      {"an offset behind the end",
       [](GgufFile& f) { f.tensors[1].offset = 1 << 20; },
       {"'b'", "but the file holds"}},
      {"an offset whose end is beyond 2^64",
       [](GgufFile& f) { f.tensors[1].offset = ~uint64_t{31}; },
       {"'b'"}},
      {"tensors that overlap",
       [](GgufFile& f) { f.tensors[1].offset = 0; },
       {"'a'", "'b'", "overlap"}},
  };
}

TEST(GgufHeader, NamesWhatIsWrong) {
  for (const Broken& broken : broken_files()) {
    SCOPED_TRACE(broken.name);
    GgufFile file = honest();
    broken.change(file);
    const std::string bytes = file.bytes();
    const std::string message = testing::error_of([&] { read(bytes); });
    EXPECT_TRUE(testing::has(message, "x.gguf"));
    for (const std::string& part : broken.says) EXPECT_TRUE(testing::has(message, part));
  }
}

TEST(GgufHeader, NamesOtherFiles) {
  expect_error([] { read(""); }, {"does not begin with GGUF"});
  expect_error([] { read("GGML1234"); }, {"does not begin with GGUF"});
  expect_error([] { read("version https://git-lfs.github.com/spec/v1\n"); }, {"git lfs pull"});
}

TEST(GgufHeader, TellsFilesByTheirNameOrFirstBytes) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "a.gguf", "x");
  testing::write_text(folder / "b", honest().bytes());
  testing::write_text(folder / "c", "GGU");
  EXPECT_TRUE(is_gguf_file(folder / "a.gguf"));
  EXPECT_TRUE(is_gguf_file(folder / "b"));
  EXPECT_FALSE(is_gguf_file(folder / "c"));
  EXPECT_FALSE(is_gguf_file(folder.path()));
  EXPECT_FALSE(is_gguf_file(folder / "none.gguf"));
}

}  // namespace gguf_header_test
}  // namespace refract
