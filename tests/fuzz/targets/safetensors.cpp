#include "formats/safetensors/header.h"
#include "fuzz/fuzz_target.h"

// Weights, buffers, adapters and train states are such files. What is accepted lies within the
// file, tensor behind tensor, and its sizes are those that the shapes say.
FUZZ_TARGET(safetensors) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  const refract::SafetensorsHeader header =
      refract::read_safetensors_header(bytes, "x.safetensors");
  uint64_t at = 0;
  for (const refract::TensorInfo& info : header.tensors) {
    if (info.begin != at || info.end < at) std::abort();
    at = info.end;
    bool empty = false;
    for (const int64_t n : info.shape) {
      if (n < 0) std::abort();
      empty = empty || n == 0;
    }
    if (empty != (info.begin == info.end)) std::abort();
    info.describe();
  }
  if (header.data_begin > text.size() || at != text.size() - header.data_begin) std::abort();
}
