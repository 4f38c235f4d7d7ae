#include "report/sweep/sweep_record.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/files.h"
#include "support/sweep_of_two.h"
#include "support/temporary_folder.h"

namespace refract {
namespace sweep_record_test {

using testing::sweep_of_two;
using testing::TemporaryFolder;

TEST(SweepRecord, ReadsWhatItWrote) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_sweep(folder.path()).has_value());
  write_sweep(folder.path(), sweep_of_two());
  const SweepRecord read = read_sweep(folder.path()).value();
  EXPECT_EQ(read.recipe, "r.toml");
  EXPECT_EQ(read.keys, sweep_of_two().keys);
  ASSERT_EQ(read.runs.size(), 2u);
  EXPECT_EQ(read.runs[0].values, sweep_of_two().runs[0].values);
  EXPECT_EQ(read.runs[0].state, SweepState::kFailed);
  EXPECT_EQ(read.runs[0].reason, sweep_of_two().runs[0].reason);
  EXPECT_EQ(read.runs[1].settings, "{\"x\":[1]}");
  write_file_atomically(folder / "sweep.json", "{\"recipe\": 3}");
  EXPECT_THROW(read_sweep(folder.path()), Error);
}

}  // namespace sweep_record_test
}  // namespace refract
