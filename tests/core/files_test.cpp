#include "core/files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/errors.h"
#include "support/file_size_limit.h"
#include "support/temporary_folder.h"

namespace refract {
namespace files_test {

namespace fs = std::filesystem;
using testing::FileSizeLimit;
using testing::TemporaryFolder;

TEST(Files, WriteIsAllOrNothing) {
  const TemporaryFolder folder;
  const fs::path path = folder / "f.txt";
  write_file_atomically(path, "old");
  {
    const FileSizeLimit limit(4096);
    EXPECT_THROW(write_file_atomically(path, std::string(100000, 'x')), Error);
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}),
            1);  // nothing partial is left
}

TEST(Files, MissingFileNamesItself) {
  const TemporaryFolder folder;
  const std::string path = folder.str("none");
  EXPECT_EQ(testing::error_of([&] { read_file(path, "the tokenizer"); }),
            fmt::format("can't read the tokenizer '{}': No such file or directory", path));
}

TEST(Files, WhatKilledWritersLeftGoesAndOthersFilesStay) {
  const TemporaryFolder folder;
  const fs::path path = folder / "f.txt";
  fs::path living;
  const int fd = open_partial(path, living);
  ASSERT_GE(fd, 0);
  const auto touch = [&](const char* name) { std::ofstream(folder / name) << "x"; };
  const std::vector<const char*> kept = {"f.txt.partial", "f.txt.12.partial", "f.txt.a-1.partial",
                                         "g.f.txt.12-3.partial", "f.txt2.12-3.partial"};
  for (const char* name : kept) touch(name);
  touch("f.txt.12-3.partial");
  write_file_atomically(path, "new");
  EXPECT_FALSE(fs::exists(folder / "f.txt.12-3.partial"));
  for (const char* name : kept) EXPECT_TRUE(fs::exists(folder / name)) << name;
  EXPECT_TRUE(fs::exists(living));
  ::close(fd);
  write_file_atomically(path, "newer");
  EXPECT_FALSE(fs::exists(living));
}

}  // namespace files_test
}  // namespace refract
