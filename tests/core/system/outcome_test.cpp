#include "core/system/outcome.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>

namespace refract {
namespace outcome_test {

// The exit code of an action and what it left on standard error.
struct Ended {
  int code;
  std::string line;
};

template <class Action>
Ended ended(const Action& action) {
  ::testing::internal::CaptureStderr();
  const int code = guarded(action);
  return {code, ::testing::internal::GetCapturedStderr()};
}

TEST(Outcome, IsTheActionsOwnWhereItThrowsNothing) {
  const Ended end = ended([] { return 7; });
  EXPECT_EQ(end.code, 7);
  EXPECT_EQ(end.line, "");
}

TEST(Outcome, OfAnErrorIsItsMessageAndCode) {
  const Ended usage = ended([]() -> int { fail_usage("there is no '{}'", "x"); });
  EXPECT_EQ(usage.code, 2);
  EXPECT_EQ(usage.line, "refract: there is no 'x'\n");
  EXPECT_EQ(ended([]() -> int { fail("it failed"); }).code, 1);
}

TEST(Outcome, IsOneLineWhateverAMessageHolds) {
  const Ended end = ended([]() -> int { fail("a name\nwith a \x1b[31mcolour"); });
  EXPECT_EQ(end.line.find('\n'), end.line.size() - 1);
  EXPECT_EQ(end.line.find('\x1b'), std::string::npos);
}

TEST(Outcome, OfALibrarysExceptionIsALineOfOurs) {
  const auto line = [](const auto& thrown) {
    const Ended end = ended([&]() -> int { throw thrown; });
    EXPECT_EQ(end.code, 1);
    return end.line;
  };
  EXPECT_NE(line(std::bad_alloc()).find("out of memory"), std::string::npos);
  const auto denied = std::make_error_code(std::errc::permission_denied);
  EXPECT_EQ(line(std::filesystem::filesystem_error("copy_file", "a.txt", denied)),
            "refract: can't use 'a.txt': Permission denied\n");
  EXPECT_EQ(line(std::system_error(denied, "library text")),
            "refract: the system refused a call: Permission denied\n");
  EXPECT_EQ(line(std::runtime_error("CUDA out of memory. Tried to allocate\nstack")).find("stack"),
            std::string::npos);
  try {
    FAIL() << nlohmann::json::parse("{");
  } catch (const nlohmann::json::exception& error) {
    EXPECT_EQ(line(error).find("json.exception"), std::string::npos);
  }
}

}  // namespace outcome_test
}  // namespace refract
