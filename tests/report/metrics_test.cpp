#include "report/metrics.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "support/scratch_folder.h"

namespace refract {
namespace {

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
  const ScratchFolder scratch;
  MetricsLog log(scratch.path());
  const Value values[] = {{"loss", 0.1}, {"tokens_per_second", 1e6}, {"odd \"name\"\n", -2}};
  log.write(7, values);
  const auto lines = read_lines(scratch.path());  // the log is still open
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].at("step"), 7);
  EXPECT_EQ(lines[0].at("loss"), 0.1);
  EXPECT_EQ(lines[0].at("tokens_per_second"), 1e6);
  EXPECT_EQ(lines[0].at("odd \"name\"\n"), -2);
  EXPECT_GT(lines[0].at("time").get<double>(), 1.6e9);
}

TEST(Metrics, NumbersReadBackExactly) {
  const ScratchFolder scratch;
  MetricsLog log(scratch.path());
  const double numbers[] = {1.0 / 3, 5e-324, std::numeric_limits<double>::max(), -0.0, 1e22};
  for (double number : numbers) write_loss(log, 1, number);
  const auto lines = read_lines(scratch.path());
  for (size_t i = 0; i < std::size(numbers); ++i) EXPECT_EQ(lines[i].at("loss"), numbers[i]);
}

TEST(Metrics, NotFiniteIsNull) {
  const ScratchFolder scratch;
  MetricsLog log(scratch.path());
  write_loss(log, 1, std::numeric_limits<double>::quiet_NaN());
  write_loss(log, 2, -std::numeric_limits<double>::infinity());
  for (const auto& line : read_lines(scratch.path())) EXPECT_TRUE(line.at("loss").is_null());
}

TEST(Metrics, ResumedRunHasEachStepOnce) {
  const ScratchFolder scratch;
  {
    MetricsLog log(scratch.path());
    for (int64_t step = 10; step <= 50; step += 10) write_loss(log, step, 1.0);
  }
  for (int resume = 0; resume < 2; ++resume) {  // killed and resumed twice from step 20
    MetricsLog log(scratch.path(), 20);
    EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{10, 20}));
    for (int64_t step = 30; step <= 40; step += 10) write_loss(log, step, 2.0);
  }
  EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{10, 20, 30, 40}));
  EXPECT_EQ(read_lines(scratch.path())[2].at("loss"), 2.0);
}

TEST(Metrics, TornLastLineIsRepaired) {
  const ScratchFolder scratch;
  {
    MetricsLog log(scratch.path());
    write_loss(log, 1, 1.0);
  }
  append_text(scratch.path(), R"({"step":2,"time":17000)");
  {
    MetricsLog log(scratch.path(), 5);
    write_loss(log, 6, 1.0);
  }
  EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{1, 6}));
  // Whole but for its newline: torn all the same, or the next line would be glued to it.
  append_text(scratch.path(), R"({"step":7,"time":1})");
  MetricsLog log(scratch.path(), 9);
  write_loss(log, 9, 1.0);
  EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{1, 6, 9}));
}

TEST(Metrics, LinesThatAreNotOursAreDropped) {
  const ScratchFolder scratch;
  append_text(scratch.path(), std::string("\0\0\0\n", 4));
  append_text(scratch.path(), "{\"step\":1}\n[1]\n{\"loss\":2}\n{\"step\":\"3\"}\n\n");
  MetricsLog log(scratch.path(), 4);
  EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{1}));
}

TEST(Metrics, FreshRunKeepsNothing) {
  const ScratchFolder scratch;
  append_text(scratch.path(), "{\"step\":0}\n{\"step\":1}\n");
  MetricsLog log(scratch.path());
  EXPECT_TRUE(read_steps(scratch.path()).empty());
}

TEST(Metrics, StepsMayNotDecrease) {
  const ScratchFolder scratch;
  MetricsLog log(scratch.path());
  write_loss(log, 5, 1.0);
  EXPECT_THROW(write_loss(log, 4, 1.0), Error);
}

TEST(Metrics, MissingFolderIsNamed) {
  const ScratchFolder scratch;
  try {
    MetricsLog log(scratch.path() / "gone");
    FAIL() << "opened a log in a folder that does not exist";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("gone"), std::string::npos) << error.what();
  }
}

// A file-size limit stands in for a full disk: write() stores a part of the line and then fails.
TEST(Metrics, FullDiskLeavesWholeLinesOnly) {
  const ScratchFolder scratch;
  MetricsLog log(scratch.path());
  write_loss(log, 1, 1.0);
  const auto size = std::filesystem::file_size(scratch.path() / "metrics.jsonl");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit{size + 10, old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  EXPECT_THROW(write_loss(log, 2, 1.0), Error);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(std::filesystem::file_size(scratch.path() / "metrics.jsonl"), size);
  write_loss(log, 2, 2.0);
  EXPECT_EQ(read_steps(scratch.path()), (std::vector<int64_t>{1, 2}));
}

}  // namespace
}  // namespace refract
