#include "train/batch_count.h"

#include <cmath>

#include "core/error.h"
#include "core/expression.h"

namespace refract {

int64_t batch_count(const std::string& text, const std::string& setting) {
  constexpr double kMost = 1e9;
  if (text == "all") return 0;
  double batches = 0;
  try {
    batches = evaluate_expression(text, {});
  } catch (const Error& error) {
    fail_usage("{}: {}", setting, error.what());
  }
  if (!(batches >= 1 && batches <= kMost) || batches != std::floor(batches)) {
    fail_usage("{} = \"{}\" is neither \"all\" nor a whole number from 1 to {}", setting, text,
               static_cast<int64_t>(kMost));
  }
  return static_cast<int64_t>(batches);
}

}  // namespace refract
