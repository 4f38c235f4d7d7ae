#include "report/run/start_record.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temporary_folder.h"

namespace refract {
namespace start_record_test {

StartRecord start(int64_t from_step, const std::string& command) {
  StartRecord record;
  record.time = 1700000000.5;
  record.version = "0.1.0";
  record.command = command;
  record.device = "cpu";
  record.precision = "fp32";
  record.from_step = from_step;
  record.steps = 20;
  record.guided_steps = 10;
  record.parameters = 123;
  record.trainable_parameters = 12;
  record.training_flops = 4.5e9;
  return record;
}

TEST(StartRecords, AreKeptOverAResumeAndDroppedByANewRun) {
  const testing::TemporaryFolder folder;
  EXPECT_TRUE(read_starts(folder / ".").empty());
  write_start(folder / ".", start(0, "refract train a.toml \xff"));
  write_start(folder / ".", start(10, "refract train a.toml --resume"));
  const std::vector<StartRecord> starts = read_starts(folder / ".");
  ASSERT_EQ(starts.size(), 2U);
  EXPECT_EQ(starts[0].command, "refract train a.toml \xef\xbf\xbd");
  EXPECT_EQ(starts[1].from_step, 10);
  EXPECT_EQ(starts[1].time, 1700000000.5);
  EXPECT_EQ(starts[1].guided_steps, 10);
  EXPECT_EQ(starts[1].trainable_parameters, 12);
  EXPECT_EQ(starts[1].training_flops, 4.5e9);
  write_start(folder / ".", start(0, "again"));
  EXPECT_EQ(read_starts(folder / ".").size(), 1U);
}

TEST(StartRecords, LinesOfAnotherFormAreLeftOut) {
  const testing::TemporaryFolder folder;
  write_start(folder / ".", start(0, "good"));
  std::ofstream(folder / "starts.jsonl", std::ios::app) << "{\"time\":1}\n[]\n{\"time\":1700";
  ASSERT_EQ(read_starts(folder / ".").size(), 1U);
}

}  // namespace start_record_test
}  // namespace refract
