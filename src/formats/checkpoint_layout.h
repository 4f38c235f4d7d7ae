// How the names in a checkpoint file translate to ours; the reverse of checkpoint_layout().
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace refract {

// One of our parameters as a part of a stored tensor: rows [part / parts, (part + 1) / parts) after
// transposing.
struct StoredName {
  std::string ours;
  bool transposed = false;
  int64_t part = 0, parts = 1;
};

// Our parameters in the stored tensor of a "gpt2", "llama" or "refract" file. None: the tensor
// means nothing to us and is ignored. A name that is not known comes back unchanged.
std::vector<StoredName> our_names(const std::string& format, const std::string& stored);

}  // namespace refract
