// A model's LoRA adapters, the layers whose rule is of the kind "lora", to and from a folder of
// Hugging Face's `peft` (formats/peft_files.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "formats/peft_files.h"
#include "model/decoder.h"
#include "transforms/rules.h"

namespace refract {

struct AdapterOptions {
  std::string base_model;  // folder or Hub id of the model below the adapter
  at::ScalarType dtype = at::kFloat;
};

// Writes the adapters of every layer whose rule is "lora". Fails where there are none, where
// `transformers` has no model that computes the decoder, and for q, k and v of a GPT-2, whose one
// fused c_attn can't hold an adapter per part.
void save_adapter(const Decoder& decoder, const Rules& rules, const std::filesystem::path& folder,
                  const AdapterOptions& options);

// Reads such a folder into a decoder whose rules hold "lora" for the same layers with the same rank
// and alpha; says what stands against it otherwise. An adapter of a GPT-2's c_attn becomes one each
// of q, k and v. The decoder must be allocated.
void load_adapter(Decoder& decoder, const Rules& rules, const std::filesystem::path& folder);

}  // namespace refract
