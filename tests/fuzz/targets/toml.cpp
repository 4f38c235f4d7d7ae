#include "core/toml.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz_target.h"

// What is read can be written and read again.
FUZZ_TARGET(toml) {
  const nlohmann::json tree = refract::parse_toml(text, "the file");
  refract::parse_toml(refract::to_toml(tree), "the copy");
}
