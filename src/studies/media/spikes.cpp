#include "studies/media/spikes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "analysis/energy/energy_constants.h"
#include "analysis/energy/model_energy.h"
#include "core/error.h"
#include "runs/loaded_model.h"
#include "studies/media/spikes_output.h"
#include "studies/media/study_tokens.h"
#include "studies/study_folder.h"
#include "transforms/spiking/spike_time.h"

namespace refract {
namespace {

constexpr double kNear = 0.01;  // of the quantized loss

// Sums over tokens: nats, right guesses, spikes, additions.
struct Sums {
  double loss = 0, correct = 0, spikes = 0, additions = 0;

  Sums operator+(const Sums& other) const {
    return {loss + other.loss, correct + other.correct, spikes + other.spikes,
            additions + other.additions};
  }
};

// Of all operands; waits for the device once.
std::pair<double, double> fired(const SpikeTime& time) {
  std::vector<at::Tensor> rows;
  for (const auto& [name, count] : time.counts())
    rows.push_back(at::stack({count.spikes, count.additions}));
  if (rows.empty()) return {0, 0};
  const at::Tensor sums = at::stack(rows).sum(0).cpu();
  return {sums[0].item<double>(), sums[1].item<double>()};
}

class Simulation {
 public:
  Simulation(const LoadedModel& loaded, const StudyTokens& tokens, int64_t steps)
      : model_(*loaded.model), tokens_(tokens), steps_(steps) {}

  void run() {
    for (size_t batch = 0; batch < tokens_.batches.size(); ++batch) {
      time_.rest();
      at_rest = at_rest + forward(batch);
      add(batch_steps(batch));
    }
  }
  const SpikeTime& time() const { return time_; }

  Sums at_rest;
  std::vector<Sums> steps;
  bool settled = true;

 private:
  Sums forward(size_t batch) {
    const Decoder::Loss loss =
        model_.loss(tokens_.context(batch, model_.device(), fresh_), tokens_.batches[batch].inputs,
                    tokens_.batches[batch].targets);
    fresh_ = false;
    return {loss.sum.item<double>(), loss.correct.item<double>(), 0, 0};
  }

  // Its sums after each step, until nothing fires any more.
  std::vector<Sums> batch_steps(size_t batch) {
    std::vector<Sums> all;
    const auto [spikes_before, additions_before] = fired(time_);
    double last = spikes_before;
    time_.begin();
    for (int64_t t = 0; t < steps_; ++t) {
      if (t > 0) time_.advance();
      Sums sums = forward(batch);
      const auto [spikes, additions] = fired(time_);
      if (time_.counts().empty()) {
        fail_usage(
            "no layer of the model is spiking; write --kind spiking, or rules with kind = "
            "\"spiking\"");
      }
      sums.spikes = spikes - spikes_before;
      sums.additions = additions - additions_before;
      all.push_back(sums);
      if (spikes == last && time_.biases_are_in()) return all;
      last = spikes;
    }
    settled = false;
    return all;
  }

  // A batch that has settled stays as it is.
  void add(const std::vector<Sums>& batch) {
    const size_t known = steps.size();
    if (batch.size() > known) steps.resize(batch.size(), known == 0 ? Sums() : steps.back());
    for (size_t t = 0; t < steps.size(); ++t)
      steps[t] = steps[t] + batch[std::min(t, batch.size() - 1)];
  }

  Decoder& model_;
  const StudyTokens& tokens_;
  int64_t steps_;
  SpikeTime time_;
  bool fresh_ = true;
};

// "model.layers.3.mlp.down_proj.x" -> "down_proj.x".
std::string type_of(const std::string& operand) {
  const size_t role = operand.rfind('.');
  const size_t module = role == std::string::npos ? role : operand.rfind('.', role - 1);
  return module == std::string::npos ? operand : operand.substr(module + 1);
}

std::vector<SpikesOfType> types_of(const SpikeTime& time, double tokens) {
  std::vector<SpikesOfType> types;
  for (const auto& [name, count] : time.counts()) {
    const std::string type = type_of(name);
    auto found =
        std::find_if(types.begin(), types.end(), [&](const auto& t) { return t.type == type; });
    if (found == types.end()) {
      types.push_back({type, 0, 0});
      found = types.end() - 1;
    }
    found->values += static_cast<double>(count.values) / tokens;
    found->spikes += count.spikes.item<double>() / tokens;
  }
  return types;
}

// The first of the steps from which on all are near.
int64_t first_near(const std::vector<SpikesStep>& steps, double loss) {
  int64_t first = 0;
  for (const SpikesStep& step : steps) {
    const bool near = std::abs(step.loss - loss) <= kNear * loss;
    if (!near) first = 0;
    if (near && first == 0) first = step.step;
  }
  return first;
}

bool is_spiking(const ModuleEnergy& module) { return module.medium.ends_with("spiking"); }

SpikesResult result_of(const LoadedModel& loaded, const Simulation& found, double tokens,
                       const EnergyConstants& constants) {
  SpikesResult result;
  result.tokens = static_cast<int64_t>(tokens);
  result.loss = found.at_rest.loss / tokens;
  result.accuracy = found.at_rest.correct / tokens;
  double others = 0;  // what no spike computes
  for (const ModuleEnergy& module :
       energy_per_token(*loaded.model, loaded.rules, loaded.config.data.context, constants)) {
    others += is_spiking(module) ? module.energy.beside : module.energy.total();
    result.quantized_joules += module.energy.total();
    result.digital_joules += module.digital;
  }
  for (size_t t = 0; t < found.steps.size(); ++t) {
    const Sums& sums = found.steps[t];
    result.steps.push_back({static_cast<int64_t>(t) + 1, sums.loss / tokens, sums.correct / tokens,
                            sums.spikes / tokens,
                            others + sums.additions / tokens * constants.spike_add});
  }
  result.within = first_near(result.steps, result.loss);
  result.settled = found.settled;
  result.types = types_of(found.time(), tokens);
  return result;
}

}  // namespace

SpikesResult measure_spikes(const SpikesStudy& study) {
  if (study.steps < 1) fail_usage("--steps {} must be at least 1", study.steps);
  if (study.tokens < 1) fail_usage("--tokens {} must be at least 1", study.tokens);
  const EnergyConstants constants = energy_constants(study.energy);
  const LoadedModel loaded = load_model(study.model, with_medium(study.medium, study.overrides));
  const StudyTokens tokens =
      study_tokens(loaded, study.data, study.tokens, StudySplit::kValidation);
  const StudyFolder folder(study.out);
  const at::NoGradGuard no_grad;
  Simulation simulation(loaded, tokens, study.steps);
  simulation.run();
  SpikesResult result = result_of(loaded, simulation, static_cast<double>(tokens.count), constants);
  write_spikes(result, folder.path().string());
  return result;
}

}  // namespace refract
