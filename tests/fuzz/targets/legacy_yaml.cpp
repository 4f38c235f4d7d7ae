#include "fuzz/fuzz_target.h"
#include "transforms/legacy/legacy.h"

FUZZ_TARGET(legacy_yaml) {
  static const refract::fuzz::Folder folder;
  refract::legacy_rules(folder.write("rules.yaml", text),
                        {"model.layers.0.self_attn", "model.layers.0.self_attn.q_proj",
                         "model.layers.0.mlp.down_proj"});
}
