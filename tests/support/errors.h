// What a test expects of an Error and its message.
#pragma once
#include <gtest/gtest.h>

#include <initializer_list>
#include <optional>
#include <string>

#include "core/error.h"

namespace refract::testing {

// The Error that the call throws. An exception of another type passes through and fails the test.
template <class Call>
std::optional<Error> thrown_by(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

// Its message; empty where the call throws nothing.
template <class Call>
std::string error_of(const Call& call) {
  const std::optional<Error> error = thrown_by(call);
  return error ? error->what() : "";
}

// The same of an error in the user's request, as its exit code must say.
template <class Call>
std::string usage_error_of(const Call& call) {
  const std::optional<Error> error = thrown_by(call);
  if (!error) return "";
  EXPECT_EQ(error->code(), ExitCode::kUsage) << error->what();
  return error->what();
}

// Whether the text holds the part; a failure shows both.
inline ::testing::AssertionResult has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << text << "' lacks '" << part << "'";
}

// The call fails with a message of one line that holds every part.
template <class Call>
void expect_error(const Call& call, std::initializer_list<std::string> parts) {
  const std::optional<Error> error = thrown_by(call);
  ASSERT_TRUE(error) << "no error";
  const std::string message = error->what();
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const std::string& part : parts) EXPECT_TRUE(has(message, part));
}

}  // namespace refract::testing
