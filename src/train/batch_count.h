// How settings say over how many batches of a split something is evaluated.
#pragma once
#include <cstdint>
#include <string>

namespace refract {

// 0 for "all", else the whole number from 1 on that the expression `text` gives. Fails (usage) for
// what is neither, naming `setting`.
int64_t batch_count(const std::string& text, const std::string& setting);

}  // namespace refract
