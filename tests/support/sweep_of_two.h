// A sweep of two runs, one failed and one finished.
#pragma once
#include "report/sweep/sweep_record.h"

namespace refract::testing {

inline SweepRecord sweep_of_two() {
  SweepRecord sweep{.recipe = "r.toml", .keys = {"optimizer.betas"}, .runs = {}};
  sweep.runs.push_back({.name = "a",
                        .values = {"[0.9, 0.95]"},
                        .settings = "{}",
                        .state = SweepState::kFailed,
                        .reason = "a \"quoted\"\nreason"});
  sweep.runs.push_back({.name = "b",
                        .values = {"0.9"},
                        .settings = "{\"x\":[1]}",
                        .state = SweepState::kFinished,
                        .reason = ""});
  return sweep;
}

}  // namespace refract::testing
