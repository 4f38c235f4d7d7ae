#include "studies/media/proposals.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/progress.h"
#include "core/toml.h"
#include "text/regex.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr int64_t kLossesInTurn = 36;  // that a choice module by module may measure

// The chosen modules by a rule of kind "none" before the others.
std::string rules_toml(const std::vector<std::string>& digital, const Rules& rules) {
  json all = json::array();
  std::string match;
  for (const std::string& name : digital) {
    if (!match.empty()) match += '|';
    match += pattern_of_name(name);
  }
  if (!digital.empty()) all.push_back({{"match", match}, {"kind", "none"}});
  for (const json& rule : json::parse(rules.to_json())) all.push_back(rule);
  return to_toml(json{{"transform", all}});
}

class Proposals {
 public:
  Proposals(MediumBench& bench, const std::vector<DigitalChoice>& modules,
            const std::vector<int64_t>& layers)
      : bench_(bench), modules_(modules), layers_(layers) {
    for (const DigitalChoice& module : modules) total_ += module.multiplications;
  }

  DigitalProposal of(double share, const Chosen& smaller, Chosen& chosen, bool all_uniform) {
    const double budget = share * total_;
    DigitalProposal proposal;
    proposal.asked = share;
    const std::vector<UniformChoice> ways = {
        {"by loss per multiplication", choose_by_worth(modules_, budget)},
        {"by loss", choose_by_gain(modules_, budget)},
        {"one by one", choose_in_turn(
                           modules_, budget, smaller,
                           [&](const Chosen& some) { return loss_without(some); }, kLossesInTurn)},
    };
    for (const UniformChoice& way : ways) {
      DigitalOutcome outcome = measured(way);
      if (&way != &ways.front() && !(outcome.loss < proposal.chosen.loss)) continue;
      proposal.chosen = std::move(outcome);
      chosen = way.chosen;
    }
    for (const UniformChoice& way : uniform_choices(modules_, budget)) {
      proposal.uniform.push_back(measured(way));
      if (!all_uniform) break;
    }
    proposal.rules = rules_toml(proposal.chosen.modules, bench_.rules());
    return proposal;
  }

 private:
  double loss_without(const Chosen& chosen) {
    MediumBench::Names in_medium;
    for (const DigitalChoice& module : modules_) in_medium.insert(module.module);
    int64_t first = layers_.back() + 1;
    for (const size_t i : chosen) {
      in_medium.erase(modules_[i].module);
      first = std::min(first, layers_[i]);
    }
    return bench_.loss(in_medium, "medium", first);
  }

  DigitalOutcome measured(const UniformChoice& way) {
    DigitalOutcome outcome;
    outcome.name = way.name;
    for (const size_t i : way.chosen) {
      outcome.modules.push_back(modules_[i].module);
      outcome.share += modules_[i].multiplications / total_;
    }
    outcome.loss = loss_without(way.chosen);
    return outcome;
  }

  MediumBench& bench_;
  const std::vector<DigitalChoice>& modules_;
  const std::vector<int64_t>& layers_;
  double total_ = 0;
};

}  // namespace

std::vector<DigitalProposal> propose_digital(MediumBench& bench,
                                             const std::vector<DigitalChoice>& modules,
                                             const std::vector<int64_t>& layers,
                                             std::vector<double> shares, bool all_uniform) {
  std::sort(shares.begin(), shares.end());
  Proposals proposals(bench, modules, layers);
  Progress progress("proposals", static_cast<int64_t>(shares.size()));
  std::vector<DigitalProposal> all;
  Chosen chosen;
  for (const double share : shares) {
    // What is chosen for a smaller share is where a larger one may start from.
    const Chosen smaller = chosen;
    all.push_back(proposals.of(share, smaller, chosen, all_uniform));
    progress.update(static_cast<int64_t>(all.size()), fmt::format("{:g}%", 100 * share));
  }
  progress.finish();
  return all;
}

std::string rules_file(const DigitalProposal& proposal, bool single) {
  return single ? "rules.toml" : fmt::format("rules-{:g}%.toml", 100 * proposal.asked);
}

}  // namespace refract
