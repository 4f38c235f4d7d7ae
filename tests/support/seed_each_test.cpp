// Seeds torch's random numbers before each test, so that what a test draws depends on neither the
// order of tests nor the filter.
#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace refract::testing {
namespace {

class SeedsEachTest : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo& /*test*/) override { at::manual_seed(1); }
};

// An environment, because listeners can only be added once googletest was set up; it deletes both.
class AddsTheListener : public ::testing::Environment {
  void SetUp() override {
    ::testing::UnitTest::GetInstance()->listeners().Append(new SeedsEachTest);
  }
};
// NOLINTNEXTLINE(bugprone-throwing-static-initialization): then no test runs
const ::testing::Environment* const kAdds =
    ::testing::AddGlobalTestEnvironment(new AddsTheListener);

}  // namespace
}  // namespace refract::testing
