#include "formats/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/error.h"
#include "formats/safetensors_write.h"
#include "formats/tensor_folder.h"
#include "support/errors.h"
#include "support/file_size_limit.h"
#include "support/temporary_folder.h"

namespace refract {
namespace safetensors_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::TemporaryFolder;

void write_raw(const fs::path& path, const std::string& header, size_t data_bytes,
               uint64_t length) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof(length));
  file << header << std::string(data_bytes, '\1');
}

TEST(SafetensorsTest, WritesAndReadsBackEveryBit) {
  const TemporaryFolder folder;
  const at::Tensor a = at::arange(12, at::kFloat).view({3, 4}), b = at::arange(5, at::kLong);
  const at::Tensor transposed = a.t();
  write_safetensors(
      folder / "x",
      {source_of("b", b), source_of("a.t", transposed), source_of("a", a),
       source_of("none", at::zeros({0, 7}, at::kBFloat16)), source_of("half", a.to(at::kHalf))});
  const SafetensorsFile file(folder / "x");
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}}));
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_TRUE(at::equal(file.tensor("a"), a));
  EXPECT_TRUE(at::equal(file.tensor("a.t"), transposed));
  EXPECT_TRUE(at::equal(file.tensor("b"), b));
  EXPECT_TRUE(at::equal(file.tensor("half"), a.to(at::kHalf)));
  EXPECT_EQ(file.tensor("none").sizes(), (std::vector<int64_t>{0, 7}));
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_NE(error_of([&] { file.tensor("absent"); }).find("'absent'"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "x.partial"));
}

TEST(SafetensorsTest, BytesDoNotDependOnTheOrder) {
  const TemporaryFolder folder;
  const TensorSource a = source_of("a", at::arange(3, at::kFloat)),
                     b = source_of("b", at::arange(3, at::kLong));
  write_safetensors(folder / "1", {a, b});
  write_safetensors(folder / "2", {b, a});
  EXPECT_EQ(read_file(folder / "1"), read_file(folder / "2"));
}

TEST(SafetensorsTest, ATensorOutlivesItsFile) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x", {source_of("a", at::arange(4, at::kFloat))});
  const at::Tensor a = SafetensorsFile(folder / "x").tensor("a");
  EXPECT_EQ(a.sum().item<float>(), 6);
}

TEST(SafetensorsTest, ConvertsOneTensorAtATime) {
  const TemporaryFolder folder;
  int alive = 0, most = 0;
  std::vector<TensorSource> sources;
  for (int i = 0; i < 5; ++i) {
    sources.push_back({fmt::format("t{}", i), at::kBFloat16, {4}, [&, i] {
                         most = std::max(most, ++alive);
                         at::Tensor data = at::full({4}, i, at::kFloat);
                         // The copy counts itself down when the writer lets go of it.
                         return at::from_blob(
                             data.data_ptr(), {4}, [&alive, data](void*) { --alive; },
                             data.options());
                       }});
  }
  write_safetensors(folder / "x", sources);
  EXPECT_EQ(most, 1);
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(SafetensorsFile(folder / "x").tensor("t3").scalar_type(), at::kBFloat16);
}

struct Damage {
  const char* what;
  std::string header;
  size_t data_bytes;
  std::vector<std::string> words;  // in the message
};

const std::vector<Damage>& damages() {
  static const std::vector<Damage> all = {
      {"not an object", "[1]", 0, {"does not start with '{'"}},
      {"leading space", " {}", 0, {"does not start with '{'"}},
      {"not JSON", "{\"a\":}", 0, {"not JSON"}},
      {"text behind", "{}x", 0, {"not JSON"}},
      {"overlap",
       R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8,
       {"'b'", "overlaps"}},
      {"twice the same bytes",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4,
       {"'b'", "overlaps"}},
      {"hole at the start",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8,
       {"'a'", "4 unused bytes"}},
      {"hole",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3,
       {"'b'", "1 unused bytes"}},
      {"bytes at the end",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       2,
       {"end at byte 1 of 2"}},
      {"cut off",
       R"({"a":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})",
       15,
       {"'a'", "cut off"}},
      {"wrong size",
       R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       8,
       {"'a'", "12 bytes", "hold 8"}},
      {"backwards",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})",
       4,
       {"'a'", "data_offsets"}},
      {"three offsets",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})",
       4,
       {"'a'", "data_offsets"}},
      {"no offsets", R"({"a":{"dtype":"F32","shape":[1]}})", 4, {"'a'", "data_offsets"}},
      {"negative offset",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})",
       4,
       {"'a'", "data_offsets"}},
      {"negative shape",
       R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
       4,
       {"'a'", "shape"}},
      {"fractional shape",
       R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})",
       4,
       {"'a'", "shape"}},
      {"overflowing shape",
       R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
       0,
       {"'a'", "impossible shape"}},
      {"no shape", R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"'a'", "shape"}},
      {"no dtype", R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "dtype"}},
      {"unknown dtype",
       R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})",
       4,
       {"'a'", "F4"}},
      {"entry is a number", R"({"a":5})", 0, {"'a'", "not an object"}},
      {"key twice",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2,
       {"'a' twice"}},
      {"inner key twice",
       R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"'dtype' twice"}},
      {"metadata is a list", R"({"__metadata__":[]})", 0, {"__metadata__"}},
      {"metadata holds a number", R"({"__metadata__":{"k":1}})", 0, {"__metadata__", "'k'"}},
  };
  return all;
}

TEST(SafetensorsTest, EveryViolationNamesFileAndTensor) {
  const TemporaryFolder folder;
  for (const Damage& damage : damages()) {
    write_raw(folder / "bad.safetensors", damage.header, damage.data_bytes, damage.header.size());
    const std::string message = error_of([&] { SafetensorsFile file(folder / "bad.safetensors"); });
    EXPECT_NE(message.find("bad.safetensors"), std::string::npos) << damage.what << ": " << message;
    for (const std::string& word : damage.words) {
      EXPECT_NE(message.find(word), std::string::npos) << damage.what << ": " << message;
    }
  }
}

TEST(SafetensorsTest, HeaderLengthIsChecked) {
  const TemporaryFolder folder;
  write_raw(folder / "x", "{}", 0, 100'000'001);
  EXPECT_NE(error_of([&] { SafetensorsFile f(folder / "x"); }).find("100000001"),
            std::string::npos);
  write_raw(folder / "x", "{}", 0, 3);
  EXPECT_NE(error_of([&] { SafetensorsFile f(folder / "x"); }).find("cut off"), std::string::npos);
  write_raw(folder / "x", "", 0, 0);
  EXPECT_NE(error_of([&] { SafetensorsFile f(folder / "x"); }).find("'{'"), std::string::npos);
  std::ofstream(folder / "x") << "short";
  EXPECT_NE(error_of([&] { SafetensorsFile f(folder / "x"); }).find("5 bytes"), std::string::npos);
  std::ofstream(folder / "x").close();
  EXPECT_NE(error_of([&] { SafetensorsFile f(folder / "x"); }).find("0 bytes"), std::string::npos);
}

TEST(SafetensorsTest, PaddedAndEmptyHeadersAreFine) {
  const TemporaryFolder folder;
  write_raw(folder / "x", "{}      ", 0, 8);
  EXPECT_TRUE(SafetensorsFile(folder / "x").tensors().empty());
  write_safetensors(folder / "y", {});
  EXPECT_TRUE(SafetensorsFile(folder / "y").tensors().empty());
}

TEST(SafetensorsTest, TwoTensorsOfOneNameAreRefused) {
  const TemporaryFolder folder;
  const TensorSource a = source_of("a", at::zeros({1}));
  EXPECT_NE(error_of([&] {
              write_safetensors(folder / "x", {a, a});
            }).find("'a'"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "x"));
}

// The write that crosses the limit is cut short, the next one fails.
TEST(SafetensorsTest, AShortWriteIsOneLineAndLeavesTheOldFile) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x", {source_of("old", at::zeros({2}))});
  const std::string message = error_of([&] {
    const testing::FileSizeLimit limit(100'000);
    write_safetensors(folder / "x", {source_of("a", at::zeros({100'000}))});
  });
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_NE(message.find("/x'"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_NE(SafetensorsFile(folder / "x").find("old"), nullptr);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);  // nothing partial
}

TEST(SafetensorsTest, AFolderThatDoesNotExistIsNamed) {
  const TemporaryFolder folder;
  const fs::path path = folder / "none" / "x";
  EXPECT_NE(error_of([&] { write_safetensors(path, {}); }).find(path.string()), std::string::npos);
  EXPECT_NE(error_of([&] { SafetensorsFile f(path); }).find(path.string()), std::string::npos);
}

TEST(TensorFolderTest, ShardsAreFilledInOrder) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m");
  std::vector<TensorSource> sources;
  for (int i = 0; i < 5; ++i)
    sources.push_back(
        source_of(fmt::format("t{}", i), at::full({i == 2 ? 40 : 10}, i, at::kFloat)));
  save_tensors(folder / "m", sources, 100);  // 40, 40 | 160 | 40, 40
  EXPECT_EQ(SafetensorsFile(folder / "m" / "model-00001-of-00003.safetensors").tensors().size(),
            2u);
  EXPECT_EQ(SafetensorsFile(folder / "m" / "model-00002-of-00003.safetensors").tensors().size(),
            1u);
  const TensorFolder read(folder / "m");
  EXPECT_EQ(read.tensors().size(), 5u);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(
        at::equal(read.tensor(fmt::format("t{}", i)), at::full({i == 2 ? 40 : 10}, i, at::kFloat)));
  }
}

TEST(TensorFolderTest, ASaveRemovesTheFilesOfTheOneBeforeAndNoOthers) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m");
  testing::write_text(folder / "m" / "model-mine.safetensors", "mine");
  testing::write_text(folder / "m" / "model-00001-of-00007.safetensors", "of nobody's index");
  const std::vector<TensorSource> two = {source_of("a", at::zeros({10})),
                                         source_of("b", at::zeros({10}))};
  save_tensors(folder / "m", two, 40);
  EXPECT_TRUE(fs::exists(folder / "m" / "model-00002-of-00002.safetensors"));
  save_tensors(folder / "m", two);
  EXPECT_FALSE(fs::exists(folder / "m" / "model-00002-of-00002.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "m" / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(folder / "m" / "model.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "m" / "model-mine.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "m" / "model-00001-of-00007.safetensors"));
}

}  // namespace safetensors_test
}  // namespace refract
