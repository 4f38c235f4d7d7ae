// How far a run had come, as the metadata of its train state say. Nothing of torch is linked for
// it.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace refract {

// What a run needs beside the weights to go on as if it had never stopped.
struct TrainPosition {
  int64_t step = 0;       // optimizer steps done
  int64_t sequences = 0;  // sequences consumed: the place in the data order
  // Of the run. Data order, dropout and noise are functions of theirs and the step.
  int64_t seed = 0, order_seed = 0, noise_seed = 0;
};

std::map<std::string, std::string> to_metadata(const TrainPosition& position);

// Fails, naming `file`, where a number is missing, is none, is negative or is too large for a run.
TrainPosition read_train_position(const std::map<std::string, std::string>& metadata,
                                  const std::filesystem::path& file);

}  // namespace refract
