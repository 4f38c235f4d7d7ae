#include "formats/safetensors/header.h"
#include "fuzz/fuzz_target.h"
#include "train/state/train_position.h"

// What is accepted is written again as it was read, and is a place that a run can stand at.
FUZZ_TARGET(train_state) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  const refract::SafetensorsHeader header =
      refract::read_safetensors_header(bytes, "train_state.safetensors");
  const refract::TrainPosition position =
      refract::read_train_position(header.metadata, "train_state.safetensors");
  const refract::TrainPosition again =
      refract::read_train_position(refract::to_metadata(position), "the copy");
  if (again.step != position.step || again.sequences != position.sequences ||
      again.seed != position.seed || again.order_seed != position.order_seed ||
      again.noise_seed != position.noise_seed || position.sequences < 0 || position.step < 0)
    std::abort();
}
