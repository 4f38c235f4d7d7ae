// Parquet files that the system does not open; tests/parity/test_parquet.py reads whole ones.
#include "data/files/parquet.h"

#include <gtest/gtest.h>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace parquet_test {

TEST(Parquet, AFileThatCannotBeOpenedSaysWhy) {
  const testing::TemporaryFolder folder;
  testing::expect_error([&] { open_parquet(folder / "none.parquet", "text"); },
                        {"can't read", "none.parquet': No such file"});
}

}  // namespace parquet_test
}  // namespace refract
