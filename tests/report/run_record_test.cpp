#include "report/run_record.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/temporary_folder.h"

namespace refract {
namespace run_record_test {

TEST(RunRecord, LinesOfAnotherFormAreLeftOut) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "samples.jsonl",
                      "{\"step\": 1, \"text\": 5}\n{\"step\": 1e300, \"text\": \"a\"}\n7\n"
                      "{\"step\": -1, \"text\": \"b\"}\n{\"step\": 2}\n"
                      "{\"step\": 3, \"text\": \"c\"}\n{\"step\": 3, \"text\": \"c\"}\n{\"st");
  const std::vector<Sample> samples = read_samples(folder.path());
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].step, 3);
  EXPECT_EQ(samples[0].text, "c");
}

TEST(RunRecord, MetricsHaveStepsThatCanBeCounted) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "metrics.jsonl",
                      "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 1e300, \"loss\": 1}\n"
                      "{\"step\": 4, \"loss\": null, \"note\": \"x\"}\n");
  RunRecord run;
  run.metrics = read_metrics(folder.path());
  EXPECT_EQ(run.last_step(), 4);
  EXPECT_EQ(run.curve("loss").steps, (std::vector<double>{1, 4}));
  EXPECT_EQ(run.curve("loss").lowest(), 2.5);
  EXPECT_TRUE(std::isnan(run.curve("loss").last()));
  EXPECT_TRUE(run.curve("note").steps.empty());
}

}  // namespace run_record_test
}  // namespace refract
