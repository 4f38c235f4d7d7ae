#include "core/system/folder_lock.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <utility>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace folder_lock_test {

// A second description of the same folder stands for a second process.
TEST(FolderLock, OneAtATimeAndNothingIsWritten) {
  const testing::TemporaryFolder folder;
  {
    FolderLock lock(folder.path(), "is in use");
    EXPECT_TRUE(lock.found());
    testing::expect_error([&] { FolderLock(folder.path(), "is in use"); },
                          {folder.path().string(), "is in use"});
    const FolderLock moved = std::move(lock);
    EXPECT_THROW(FolderLock(folder.path(), "is in use"), Error);
  }
  EXPECT_TRUE(FolderLock(folder.path(), "is in use").found());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(FolderLock, AFolderThatDoesNotExistIsNotHeld) {
  const testing::TemporaryFolder folder;
  EXPECT_FALSE(FolderLock(folder / "none", "is in use").found());
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
}

}  // namespace folder_lock_test
}  // namespace refract
