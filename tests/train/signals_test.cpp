#include "train/signals.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace refract {
namespace signals_test {

TEST(StopSignals, EveryOneAsksToStop) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1, SIGXCPU}) {
    const StopSignals signals;
    EXPECT_EQ(StopSignals::received(), 0);
    ::raise(number);
    EXPECT_EQ(StopSignals::received(), number);
  }
}

TEST(StopSignals, OnlyTheHandIsImpatient) {
  const StopSignals signals;
  for (int i = 0; i < 3; ++i) ::raise(SIGHUP);
  ::raise(SIGPIPE);
  ::raise(SIGTERM);  // the first of its kind
  EXPECT_EQ(StopSignals::received(), SIGHUP);
  EXPECT_EXIT(::raise(SIGINT), ::testing::ExitedWithCode(128 + SIGINT), "");
}

TEST(StopSignals, WhatWasSetBeforeComesBackAndNohupStays) {
  const auto old_hangup = ::signal(SIGHUP, SIG_IGN), old_pipe = ::signal(SIGPIPE, SIG_IGN);
  {
    const StopSignals signals;
    ::raise(SIGHUP);
    EXPECT_EQ(StopSignals::received(), 0);
    ::raise(SIGPIPE);
    EXPECT_EQ(StopSignals::received(), SIGPIPE);
  }
  EXPECT_EQ(::signal(SIGPIPE, old_pipe), SIG_IGN);
  EXPECT_EQ(::signal(SIGHUP, old_hangup), SIG_IGN);
}

}  // namespace signals_test
}  // namespace refract
