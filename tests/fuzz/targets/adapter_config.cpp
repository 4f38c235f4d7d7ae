#include "formats/peft_files.h"
#include "fuzz/fuzz_target.h"

FUZZ_TARGET(adapter_config) {
  static const refract::fuzz::Folder folder;
  folder.write(refract::kAdapterConfig, text);
  const refract::PeftConfig config = refract::PeftConfig::read(folder.path());
  config.r("model.layers.0.self_attn.q_proj");
  config.alpha("model.layers.0.self_attn.q_proj");
}
