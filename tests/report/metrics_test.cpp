#include "report/metrics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "support/errors.h"
#include "support/file_size_limit.h"
#include "support/temporary_folder.h"

namespace refract {
namespace metrics_test {

using testing::expect_error;
using testing::FileSizeLimit;
using testing::TemporaryFolder;
using Value = std::pair<std::string_view, double>;

void write_loss(MetricsLog& log, int64_t step, double loss) {
  const Value values[] = {{"loss", loss}};
  log.write(step, values);
}

std::vector<nlohmann::json> read_lines(const std::filesystem::path& folder) {
  std::ifstream file(folder / "metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::vector<int64_t> read_steps(const std::filesystem::path& folder) {
  std::vector<int64_t> steps;
  for (const auto& line : read_lines(folder)) steps.push_back(line.at("step"));
  return steps;
}

void append_text(const std::filesystem::path& folder, std::string_view text) {
  std::ofstream(folder / "metrics.jsonl", std::ios::app) << text;
}

TEST(Metrics, LineIsThereWhenWriteReturns) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path());
  const Value values[] = {{"loss", 0.1}, {"tokens_per_second", 1e6}, {"odd \"name\"\n", -2}};
  log.write(7, values);
  const auto lines = read_lines(folder.path());  // the log is still open
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].at("step"), 7);
  EXPECT_EQ(lines[0].at("loss"), 0.1);
  EXPECT_EQ(lines[0].at("tokens_per_second"), 1e6);
  EXPECT_EQ(lines[0].at("odd \"name\"\n"), -2);
  EXPECT_GT(lines[0].at("time").get<double>(), 1.6e9);
}

TEST(Metrics, NumbersReadBackExactly) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path());
  const double numbers[] = {1.0 / 3, 5e-324, std::numeric_limits<double>::max(), -0.0, 1e22};
  for (double number : numbers) write_loss(log, 1, number);
  const auto lines = read_lines(folder.path());
  for (size_t i = 0; i < std::size(numbers); ++i) EXPECT_EQ(lines[i].at("loss"), numbers[i]);
}

TEST(Metrics, NotFiniteIsNull) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path());
  write_loss(log, 1, std::numeric_limits<double>::quiet_NaN());
  write_loss(log, 2, -std::numeric_limits<double>::infinity());
  for (const auto& line : read_lines(folder.path())) EXPECT_TRUE(line.at("loss").is_null());
}

TEST(Metrics, ResumedRunHasEachStepOnce) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path());
    for (int64_t step = 10; step <= 50; step += 10) write_loss(log, step, 1.0);
  }
  for (int resume = 0; resume < 2; ++resume) {  // killed and resumed twice from step 20
    MetricsLog log(folder.path(), 20);
    EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{10, 20}));
    for (int64_t step = 30; step <= 40; step += 10) write_loss(log, step, 2.0);
  }
  EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{10, 20, 30, 40}));
  EXPECT_EQ(read_lines(folder.path())[2].at("loss"), 2.0);
}

TEST(Metrics, TornLastLineIsRepaired) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder.path());
    write_loss(log, 1, 1.0);
  }
  append_text(folder.path(), R"({"step":2,"time":17000)");
  {
    MetricsLog log(folder.path(), 5);
    write_loss(log, 6, 1.0);
  }
  EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{1, 6}));
  // Whole but for its newline: torn all the same, or the next line would be glued to it.
  append_text(folder.path(), R"({"step":7,"time":1})");
  MetricsLog log(folder.path(), 9);
  write_loss(log, 9, 1.0);
  EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{1, 6, 9}));
}

TEST(Metrics, LinesThatAreNotOursAreDropped) {
  const TemporaryFolder folder;
  append_text(folder.path(), std::string("\0\0\0\n", 4));
  append_text(folder.path(), "{\"step\":1}\n[1]\n{\"loss\":2}\n{\"step\":\"3\"}\n\n");
  MetricsLog log(folder.path(), 4);
  EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{1}));
}

TEST(Metrics, FreshRunKeepsNothing) {
  const TemporaryFolder folder;
  append_text(folder.path(), "{\"step\":0}\n{\"step\":1}\n");
  MetricsLog log(folder.path());
  EXPECT_TRUE(read_steps(folder.path()).empty());
}

TEST(Metrics, StepsMayNotDecrease) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path());
  write_loss(log, 5, 1.0);
  EXPECT_THROW(write_loss(log, 4, 1.0), Error);
}

TEST(Metrics, MissingFolderIsNamed) {
  const TemporaryFolder folder;
  expect_error([&] { MetricsLog log(folder / "gone"); }, {"gone"});
}

// A write() at the limit stores a part of the line and then fails.
TEST(Metrics, FullDiskLeavesWholeLinesOnly) {
  const TemporaryFolder folder;
  MetricsLog log(folder.path());
  write_loss(log, 1, 1.0);
  const auto size = std::filesystem::file_size(folder / "metrics.jsonl");
  {
    const FileSizeLimit limit(size + 10);
    EXPECT_THROW(write_loss(log, 2, 1.0), Error);
  }
  EXPECT_EQ(std::filesystem::file_size(folder / "metrics.jsonl"), size);
  write_loss(log, 2, 2.0);
  EXPECT_EQ(read_steps(folder.path()), (std::vector<int64_t>{1, 2}));
}

}  // namespace metrics_test
}  // namespace refract
