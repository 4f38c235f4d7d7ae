// Reading a model folder's weights into a decoder.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace refract {

// Reads every parameter of the decoder (converted to the master dtype) and the buffers that the
// folder holds. Missing, unexpected and mis-shaped tensors are one Error that lists the first few,
// but for what a medium learns ("_log_scale", "_clip", ".turn" and ".turn_outputs" end its names):
// it starts at 0 where a folder holds none at all, since it was not in the medium.
// The decoder must be allocated.
void load_weights(Decoder& decoder, const std::filesystem::path& folder);

// Compares names and shapes only and allocates nothing, so that a folder whose config.json asks for
// more than its weights hold is refused first. The decoder is not allocated yet. `starting`: as
// start_from_weights() reads it.
void check_weights(Decoder& decoder, const std::filesystem::path& folder, bool starting = false);
// The same for the number of layers, before a decoder is planned: every layer has some weight.
void check_layer_count(const ModelConfig& config, const std::filesystem::path& folder);

// How well a layer stands for the dense weight it started from.
struct TakenOver {
  std::string name, kind;
  double relative_error = 0;  // |W' - W| / |W|, Frobenius norm
};

// The same for a run that starts from the folder: a transformed layer whose parameters the folder
// lacks takes over the dense "<name>.weight" that it holds instead (LinearLayer::take_over).
// Parameters of the layer that this leaves alone (an adapter's) keep their values, so initialize()
// comes first.
std::vector<TakenOver> start_from_weights(Decoder& decoder, const std::filesystem::path& folder);

}  // namespace refract
