// A model behind switches (transforms/media/switched.h), and the text that `refract sensitivity`
// measures it on.
#pragma once
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "analysis/sensitivity.h"
#include "runs/loaded_model.h"
#include "studies/media/medium_rules.h"
#include "studies/media/study_tokens.h"
#include "transforms/media/observer.h"
#include "transforms/media/switched.h"

namespace refract {

class MediumBench {
 public:
  using Names = std::set<std::string>;  // of modules

  // Fails (usage) for a model without rules.
  MediumBench(const std::string& model, const MediumChoice& medium,
              const std::vector<std::string>& overrides, const std::vector<std::string>& data,
              int64_t tokens);

  // Loss with the medium in `modules`. The layers before `first` are as in the pass kept as `like`.
  double loss(const Names& modules, const std::string& like = "", int64_t first = 0);
  double keep(const Names& modules, const std::string& name);
  double observed_loss(MediumObserver& observer);
  // Of every role, each seen once.
  std::vector<RoleStatistics> role_statistics_of_first_batch();

  const Decoder& model() const { return *loaded_.model; }
  const Rules& rules() const { return loaded_.rules; }
  int64_t tokens() const { return tokens_.count; }
  int64_t length() const { return tokens_.length; }

 private:
  void rebuild();
  double run(const Names& modules, const std::function<void(size_t)>& prepare);

  LoadedModel loaded_;
  MediumSwitches switches_;
  StudyTokens tokens_;
  bool fresh_ = true;  // no layer has derived anything from its weight yet
};

}  // namespace refract
