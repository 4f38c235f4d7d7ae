// The ranges that a run's transforms have followed, from its checkpoints.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

// A module's lower and upper end of one range over the checkpoints that the folder still has.
struct RangeTrack {
  std::string module, role;  // "model.layers.0.mlp.up_proj", "x"
  std::vector<double> steps, low, high;
};

// The range buffers of the run's checkpoints (buffers.safetensors, or among the weights): tensors
// whose name contains "range" and whose elements are pairs (low, high).
std::vector<RangeTrack> read_ranges(const std::filesystem::path& run_folder);

}  // namespace refract
