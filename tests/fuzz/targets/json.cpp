#include <nlohmann/json.hpp>

#include "core/untrusted.h"
#include "fuzz/fuzz_target.h"

// What is read can be printed and read again, and any text can be shown.
FUZZ_TARGET(json) {
  refract::shown(text);
  const nlohmann::json tree = refract::parse_json(text, "the file");
  refract::shown(tree);
  if (refract::parse_json(tree.dump(), "the copy") != tree) std::abort();
  refract::parse_json(text, "the file", refract::JsonKeys::kOnce);
}
