// The study of `refract chips`: what becomes of a model on memory devices as they age, over many
// chips.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "studies/media/medium_rules.h"

namespace refract {

struct ChipsStudy {
  std::string model;
  std::vector<std::string> overrides, data;
  MediumChoice medium;
  std::vector<std::string> times = {"1s", "1h", "1d", "1month", "1y"};  // since programming
  int64_t chips = 5, first = 0;  // how many, and the number of the first
  int64_t tokens = 4096;
  std::string out = "chips";
};

// The same chips at one time.
struct ChipsRow {
  std::string name;  // "1h", as it was asked for
  double seconds = 0;
  std::vector<double> losses;  // of each chip

  double mean() const;
  double deviation() const;  // of the sample; NaN for one chip
};

struct ChipsResult {
  double ideal = 0;  // loss with devices that hold what they were given
  int64_t tokens = 0, first = 0;
  std::vector<ChipsRow> rows;
  double seconds = 0;
};

// Evaluates each chip at each time on the first tokens of the data (without it, of the model's own
// validation split) and writes chips.json, chips.csv and report.html into `out`. Fails (usage) for
// a model without analog layers that have devices, and for a time that is none.
ChipsResult measure_chips(const ChipsStudy& study);

// Seconds of "90", "90s", "5min", "1h", "1d", "1month" (30 days), "1y" (365 days). Fails (usage)
// for anything else.
double seconds_of(const std::string& time);

}  // namespace refract
