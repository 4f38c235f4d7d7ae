#include "data/shard_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "data/source_paths.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace shard_folder_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::usage_error_of;
using testing::write_text;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

TEST(ShardFolder, IsNoCorpusBeforeItIsComplete) {
  const testing::TemporaryFolder place;
  ShardFolder folder(place / "a/b");
  write_text(folder.path() / "tokens_train_000000.bin", "abcd");
  EXPECT_NE(usage_error_of([&] { expand_paths({place.str("a")}); }).find("not complete"),
            std::string::npos);
  folder.commit();
  EXPECT_EQ(expand_paths({place.str("a")}).shards.size(), 1U);
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"tokens_train_000000.bin"});
}

TEST(ShardFolder, LeavesNothingWithoutACommit) {
  const testing::TemporaryFolder place;
  {
    const ShardFolder folder(place / "b");
    write_text(folder.path() / "tokens_train_000000.bin", "abcd");
  }
  EXPECT_FALSE(fs::exists(place / "b"));
}

TEST(ShardFolder, TakesOverWhatAStoppedWriterLeftAndNothingElse) {
  const testing::TemporaryFolder place;
  for (const char* name : {"tokens_train_000000.bin", "tokens_train_000001.bin.partial", "notes"})
    write_text(place / "left" / name, "abcd");
  {
    ShardFolder folder(place / "left");
    EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"notes", "unfinished.bin.partial"}));
    folder.commit();
  }
  EXPECT_NE(usage_error_of([&] { ShardFolder(place / "left"); }).find("already holds"),
            std::string::npos);
  write_text(place / "file", "abcd");
  EXPECT_NE(error_of([&] { ShardFolder(place / "file"); }), "");
}

TEST(ShardFolder, HasOneWriter) {
  const testing::TemporaryFolder place;
  std::optional<ShardFolder> first(std::in_place, place / "b");
  EXPECT_NE(error_of([&] { ShardFolder second(place / "b"); }).find("another process"),
            std::string::npos);
  EXPECT_TRUE(fs::exists(place / "b")) << "the second one leaves it alone";
  first.reset();
  EXPECT_EQ(error_of([&] { ShardFolder third(place / "b"); }), "");
}

}  // namespace shard_folder_test
}  // namespace refract
