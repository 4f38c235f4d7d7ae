// The study of `refract spikes`: a quantized model as a spiking one, time step by time step.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "studies/media/medium_rules.h"

namespace refract {

struct SpikesStudy {
  std::string model;
  std::vector<std::string> overrides, data;
  MediumChoice medium;
  std::string energy;     // a file for energy_constants(); empty: the program's own
  int64_t tokens = 2048;  // to look at
  int64_t steps = 256;    // at most; it ends where no neuron fires any more
  std::string out = "spikes";
};

// After a time step. Spikes and joules are of a token, since the first step.
struct SpikesStep {
  int64_t step = 0;
  double loss = 0, accuracy = 0;
  double spikes = 0, joules = 0;
};

// Operands of one type, over all layers.
struct SpikesOfType {
  std::string type;               // "down_proj.x", "self_attn.q"
  double values = 0, spikes = 0;  // of a token
};

struct SpikesResult {
  double loss = 0, accuracy = 0;  // of the quantized model
  int64_t tokens = 0;
  std::vector<SpikesStep> steps;
  int64_t within = 0;    // the step from which on the loss stays within 1% of `loss`; 0: none
  bool settled = false;  // no neuron fired in the last step
  double quantized_joules = 0, digital_joules = 0;  // of a token; the latter dense, in 8 bits
  std::vector<SpikesOfType> types;
};

// Writes spikes.json, spikes.csv and report.html into `out`. Fails (usage) for a model without
// spiking layers, and where `out` can't be made.
SpikesResult measure_spikes(const SpikesStudy& study);

}  // namespace refract
