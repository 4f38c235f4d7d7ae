#include "report/run/evaluation_record.h"

#include <gtest/gtest.h>

#include "support/temporary_folder.h"

namespace refract {
namespace evaluation_record_test {

using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kFile = R"({"harness": "lm-eval 0.4.13", "tasks": {
  "choices": {"model": "runs/a/checkpoints/step-00000060", "num_fewshot": 2, "samples": 30, "metrics": [
    {"name": "acc", "filter": "none", "value": 0.5, "stderr": 0.25, "higher_is_better": true},
    {"name": "exact_match", "filter": "strict", "value": 0.125, "stderr": null, "higher_is_better": null}]},
  "pages": {"model": "runs/a", "num_fewshot": null, "samples": null, "metrics": [
    {"name": "byte_perplexity", "filter": "none", "value": 7, "stderr": null, "higher_is_better": false}]}}})";

TEST(EvaluationRecord, ReadsAndShowsWhatTheHarnessSaid) {
  const TemporaryFolder folder;
  write_text(folder / "evaluation.json", kFile);
  const std::vector<EvaluationRow> rows = read_evaluation(folder.path());
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].task, "choices");
  EXPECT_EQ(rows[0].value, 0.5);
  EXPECT_EQ(rows[0].error, 0.25);
  EXPECT_EQ(rows[0].higher_is_better, true);
  EXPECT_EQ(rows[0].shots, 2);
  EXPECT_EQ(rows[1].error, std::nullopt);
  EXPECT_EQ(rows[2].value, 7);
  RunRecord run;
  run.folder = folder.path();
  run.name = "a";
  Page page("test");
  add_evaluations(page, {run});
  const std::string html = page.html();
  for (const char* part :
       {"Tasks of lm-evaluation-harness", "acc, higher is better", "0.5000", "0.2500",
        "exact_match (strict)", "lower is better", "7.0000", "step-00000060"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
}

TEST(EvaluationRecord, OtherFilesAreNone) {
  const TemporaryFolder folder;
  EXPECT_TRUE(read_evaluation(folder.path()).empty());
  for (const char* text : {"", "[]", "{}", R"({"tasks": []})", R"({"tasks": {"a": {}}})",
                           R"({"tasks": {"a": {"model": "m", "metrics": [{"name": 3}]}}})"}) {
    write_text(folder / "evaluation.json", text);
    EXPECT_TRUE(read_evaluation(folder.path()).empty()) << text;
  }
  RunRecord run;
  run.folder = folder.path();
  Page page("test");
  add_evaluations(page, {run});
  EXPECT_EQ(page.html().find("harness"), std::string::npos);
}

}  // namespace evaluation_record_test
}  // namespace refract
