#include "fuzz/fuzz_target.h"
#include "transforms/legacy/legacy.h"

FUZZ_TARGET(legacy_toml) {
  static const refract::fuzz::Folder folder;
  refract::legacy_rules(folder.write("rules.toml", text),
                        {"model.layers.0.self_attn", "model.layers.0.self_attn.q_proj"});
}
