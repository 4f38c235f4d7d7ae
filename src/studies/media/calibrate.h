// The study of `refract calibrate`: sets the ranges of a model's media from data, without training.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "analysis/calibration.h"
#include "model/decoder.h"
#include "report/table.h"
#include "studies/media/medium_rules.h"
#include "transforms/media/observer.h"

namespace refract {

// One range that was set; of rows the widest, and how many there are.
struct CalibratedRange {
  std::string module, role;
  int64_t rows = 0;  // 0: one range of the whole tensor
  double min = 0, max = 0, lo = 0, hi = 0;
};

// Gathers what the layers show, and sets their ranges.
class Calibrator : public MediumObserver {
 public:
  explicit Calibrator(RangeSearch search);
  ~Calibrator() override;
  at::Tensor see(const Observation& observation) override;
  void see_channels(const std::string& module, const at::Tensor& values,
                    const at::Tensor& largest) override;

  // Sets what see_channels() was told of. True where there is any: ranges depend on it, so that the
  // data has to pass again, and what was gathered of them is dropped.
  bool set_channels();
  // Sets all ranges that were seen.
  std::vector<CalibratedRange> set_ranges();

 private:
  struct Entry;
  RangeSearch search_;
  std::vector<Entry> entries_;                                    // in the order of the model
  std::vector<std::pair<at::Tensor, at::Tensor>> channels_ = {};  // buffer, largest seen
  bool channels_set_ = false;
};

struct CalibrateStudy {
  std::string model;
  std::vector<std::string> overrides, data;
  MediumChoice medium;
  RangeSearch search;
  int64_t tokens = 8192;
  std::string out;  // the folder to write
};

struct CalibrateResult {
  std::vector<CalibratedRange> ranges;
  int64_t tokens = 0;
  double seconds = 0;
};

// Runs the model on the first tokens of the data (without it, of its own training split), densely,
// and writes `out`: a model folder with its weights, its rules and their ranges, which every
// command takes. Fails (usage) for a model without rules, for one whose kinds keep no range, and
// where `out` holds something.
CalibrateResult calibrate(const CalibrateStudy& study);

Table calibrate_table(const CalibrateResult& result);
nlohmann::json calibrate_json(const CalibrateStudy& study, const CalibrateResult& result);

}  // namespace refract
