#include "core/system/process_info.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <system_error>

namespace refract {
namespace process_info_test {

TEST(ProcessInfo, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_quoted("run.dir=runs/a-1"), "run.dir=runs/a-1");
  EXPECT_EQ(shell_quoted("a b"), "'a b'");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_EQ(shell_quoted("it's $HOME"), "'it'\\''s $HOME'");
  EXPECT_EQ(shell_quoted("[1]"), "'[1]'");
}

TEST(ProcessInfo, SaysHowThisProcessWasStarted) {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  ASSERT_FALSE(error);
  EXPECT_NE(process_command().find(program.filename().string()), std::string::npos);
}

TEST(ProcessInfo, TimesAreInUtc) {
  EXPECT_EQ(utc_minute(0), "1970-01-01 00:00 UTC");
  EXPECT_EQ(utc_minute(1700000000.9), "2023-11-14 22:13 UTC");
  EXPECT_GT(seconds_since_1970(), 1.7e9);
}

}  // namespace process_info_test
}  // namespace refract
