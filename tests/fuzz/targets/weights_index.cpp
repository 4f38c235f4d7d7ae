#include "formats/safetensors/weight_map.h"
#include "fuzz/fuzz_target.h"

// No name leads out of the folder.
FUZZ_TARGET(weights_index) {
  for (const auto& [tensor, file] :
       refract::read_weight_map(text, "model.safetensors.index.json")) {
    const std::filesystem::path path = std::filesystem::path("/folder") / file;
    if (path.lexically_normal().parent_path() != "/folder" || file.size() > 255) std::abort();
  }
}
