#include <nlohmann/json.hpp>

#include "core/untrusted.h"
#include "formats/hf_config.h"
#include "fuzz/fuzz_target.h"

// Every family; a configuration that is accepted has sizes whose plan does not overflow.
FUZZ_TARGET(config_json) {
  const refract::ModelConfig config =
      refract::config_from_json(refract::parse_json(text, "config.json"), "config.json");
  if (config.hidden_size <= 0 || config.head_dim <= 0 || config.vocab_size <= 0) std::abort();
}
