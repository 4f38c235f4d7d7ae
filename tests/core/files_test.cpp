#include "core/files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <string>

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

}  // namespace files_test
}  // namespace refract
