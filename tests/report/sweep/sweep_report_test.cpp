#include "report/sweep/sweep_report.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/files.h"
#include "support/sweep_of_two.h"
#include "support/temporary_folder.h"

namespace refract {
namespace sweep_report_test {

using testing::sweep_of_two;
using testing::TemporaryFolder;

TEST(ShortKeys, AreTheLastPartUnlessThatIsAmbiguous) {
  const std::vector<std::string> keys = {"optimizer.lr", "transform.0.rank", "transform.1.rank"};
  EXPECT_EQ(short_keys(keys),
            (std::vector<std::string>{"lr", "transform.0.rank", "transform.1.rank"}));
}

TEST(SweepOutcome, SortsFinishedRunsFirstAndQuotesItsCsv) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "b");
  write_file_atomically(
      folder / "b" / "metrics.jsonl",
      "{\"step\":10,\"mean_loss\":2.5}\n{\"step\":10,\"validation_loss\":2.25}\n");
  const SweepOutcome outcome = read_outcome(folder.path(), sweep_of_two());
  ASSERT_EQ(outcome.rows.size(), 2u);
  EXPECT_EQ(outcome.rows[0].run.name, "b");
  EXPECT_EQ(outcome.rows[0].final_loss(), 2.25);
  EXPECT_EQ(outcome_csv(outcome),
            "run,state,optimizer.betas,step,training_loss,validation_loss,lowest_validation_loss,"
            "validation_perplexity,validation_accuracy,tokens,tokens_per_second,reason\r\n"
            "b,finished,0.9,10,2.5,2.25,2.25,,,,,\r\n"
            "a,failed,\"[0.9, 0.95]\",0,,,,,,,,\"a \"\"quoted\"\"\nreason\"\r\n");
  const nlohmann::json json = outcome_json(outcome);
  EXPECT_EQ(json[0]["validation_loss"], 2.25);
  EXPECT_TRUE(json[1]["validation_loss"].is_null());
}

}  // namespace sweep_report_test
}  // namespace refract
