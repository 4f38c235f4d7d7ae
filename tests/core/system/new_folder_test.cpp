#include "core/system/new_folder.h"

#include <gtest/gtest.h>

#include <iterator>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace new_folder_test {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::usage_error_of;
using testing::write_text;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(NewFolder, AppearsWhenItIsCommitted) {
  const TemporaryFolder place;
  {
    NewFolder folder(place / "a/b", "the model");
    write_text(folder.path() / "x", "1");
    EXPECT_FALSE(fs::exists(place / "a/b"));
    folder.commit();
    EXPECT_TRUE(fs::exists(place / "a/b/x"));
  }
  EXPECT_TRUE(fs::exists(place / "a/b/x"));
  EXPECT_EQ(entries(place / "a"), 1u);
}

TEST(NewFolder, LeavesNothingWithoutACommit) {
  const TemporaryFolder place;
  {
    const NewFolder folder(place / "b", "the model");
    write_text(folder.path() / "x", "1");
  }
  EXPECT_EQ(entries(place.path()), 0u);
}

TEST(NewFolder, TakesAnEmptyFolderAndNoOther) {
  const TemporaryFolder place;
  fs::create_directories(place / "empty");
  NewFolder folder(place.str("empty") + "/", "the model");
  write_text(folder.path() / "x", "1");
  folder.commit();
  EXPECT_TRUE(fs::exists(place / "empty/x"));
  const auto again = [&] { NewFolder(place / "empty", "the model"); };
  EXPECT_TRUE(testing::has(usage_error_of(again), "already holds something"));
  write_text(place / "file", "1");
  EXPECT_NE(usage_error_of([&] { NewFolder(place / "file", "the model"); }), "");
}

TEST(NewFolder, WhatAKilledWriterLeftIsRemoved) {
  const TemporaryFolder place;
  fs::path left;
  {
    const NewFolder folder(place / "b", "the model");
    left = folder.path();
  }
  write_text(left / "deep/old", "of the killed one");
  NewFolder folder(place / "b", "the model");
  EXPECT_EQ(folder.path(), left);
  EXPECT_EQ(entries(left), 0u);
  write_text(left / "new", "1");
  folder.commit();
  EXPECT_EQ(entries(place / "b"), 1u);
}

TEST(NewFolder, ASecondWriterFails) {
  const TemporaryFolder place;
  NewFolder first(place / "b", "the model");
  write_text(first.path() / "x", "1");
  testing::expect_error([&] { NewFolder(place / "b", "the model"); }, {"another process"});
  first.commit();
  EXPECT_TRUE(fs::exists(place / "b/x"));
}

TEST(FileIdentity, TellsAReplacedFolder) {
  const TemporaryFolder place;
  fs::create_directories(place / "a");
  const FileIdentity before(place / "a");
  EXPECT_EQ(FileIdentity(place / "a"), before);
  fs::rename(place / "a", place / "moved");
  EXPECT_FALSE(FileIdentity(place / "a").known());
  fs::create_directories(place / "a");
  EXPECT_NE(FileIdentity(place / "a"), before);
  EXPECT_EQ(FileIdentity(place / "moved"), before);
}

}  // namespace new_folder_test
}  // namespace refract
