// What `refract sensitivity --keep-digital` proposes: the modules that lose most in a medium are
// left outside of it, for a share of the multiplications.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "analysis/digital_choice.h"
#include "studies/media/medium_bench.h"

namespace refract {

// Modules that a choice leaves outside, and the loss with the medium everywhere else.
struct DigitalOutcome {
  std::string name;  // how they were chosen
  std::vector<std::string> modules;
  double share = 0;  // of all multiplications under rules
  double loss = 0;
};

struct DigitalProposal {
  double asked = 0;                     // share
  DigitalOutcome chosen;                // the least loss of those tried
  std::vector<DigitalOutcome> uniform;  // choices that know nothing of the medium, for comparison
  std::string rules;                    // TOML
};

// A proposal for each of `shares`. `layers` has the decoder layer of each module; the bench keeps a
// pass with the medium everywhere under "medium". Of `uniform_choices()` all are measured, or the
// evenly spread one alone.
std::vector<DigitalProposal> propose_digital(MediumBench& bench,
                                             const std::vector<DigitalChoice>& modules,
                                             const std::vector<int64_t>& layers,
                                             std::vector<double> shares, bool all_uniform);

// "rules.toml" of a single proposal, of several "rules-2%.toml".
std::string rules_file(const DigitalProposal& proposal, bool single);

}  // namespace refract
