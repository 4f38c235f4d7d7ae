#include "report/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "support/temporary_folder.h"

namespace refract {
namespace tensorboard_test {

using testing::TemporaryFolder;
using Value = std::pair<std::string_view, double>;

// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
TEST(TensorBoard, Crc32cKnowsTheStandardsValues) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(masked_crc32c("123456789"), 0xc78ab0e5u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (int i = 0; i < 32; ++i) rising.push_back(static_cast<char>(i));
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
}

template <class T>
T take(std::string_view& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

// Reads a file of TFRecords, checking both sums of each.
std::vector<std::string> read_records(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<std::string> records;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view length_bytes = rest.substr(0, 8);
    const auto length = take<uint64_t>(rest);
    EXPECT_EQ(take<uint32_t>(rest), masked_crc32c(length_bytes));
    records.emplace_back(rest.substr(0, length));
    rest.remove_prefix(length);
    EXPECT_EQ(take<uint32_t>(rest), masked_crc32c(records.back()));
  }
  return records;
}

// Behind wall_time: tag and eight bytes.
std::string_view behind_time(const std::string& record) {
  EXPECT_EQ(record[0], '\x09');
  return std::string_view(record).substr(9);
}

TEST(TensorBoard, WritesTheBytesOfTheFormat) {
  const TemporaryFolder folder;
  TensorBoardWriter writer(folder / "events");
  const Value values[] = {{"loss", 0.5}};
  writer.write(300, values);
  const auto records = read_records(writer.path());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(behind_time(records[0]),
            "\x1A\x0D"
            "brain.Event:2");
  // step 300 = varint AC 02; summary of 13 bytes { value of 11 { tag "loss", float 0.5 } }.
  EXPECT_EQ(behind_time(records[1]), std::string_view("\x10\xAC\x02\x2A\x0D\x0A\x0B\x0A\x04"
                                                      "loss\x15\x00\x00\x00\x3F",
                                                      18));
}

TEST(TensorBoard, ResumedRunStartsAFileThatPurges) {
  const TemporaryFolder folder;
  const TensorBoardWriter first(folder.path());
  const TensorBoardWriter second(folder.path(), 20);  // within the same second
  EXPECT_LT(first.path().filename().string(), second.path().filename().string());
  const auto records = read_records(second.path());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(behind_time(records[1]), std::string_view("\x10\x15\x3A\x02\x08\x01", 6));
}

TEST(TensorBoard, FileIsNamedAsTensorBoardExpects) {
  const TemporaryFolder folder;
  const TensorBoardWriter writer(folder.path());
  const std::string name = writer.path().filename().string();
  ASSERT_TRUE(name.starts_with("events.out.tfevents.")) << name;
  const std::string seconds = name.substr(20, 10);
  EXPECT_EQ(seconds.find_first_not_of("0123456789"), std::string::npos) << name;
  EXPECT_EQ(name[30], '.');
}

TEST(TensorBoard, FolderThatCannotBeMadeIsNamed) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "x");
  EXPECT_THROW(TensorBoardWriter(folder / "file" / "events"), Error);
}

}  // namespace tensorboard_test
}  // namespace refract
