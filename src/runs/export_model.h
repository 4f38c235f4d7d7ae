// Writes a trained model for other programs.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "formats/safetensors_write.h"

namespace refract {

// "float32", "bfloat16" or "float16" (f32, bf16, f16), as --dtype takes them; other words fail
// (usage), and the message says what is taken, with `further` at its end.
at::ScalarType file_dtype(const std::string& name, const std::string& further = "");

struct ExportOptions {
  at::ScalarType dtype = at::kFloat;              // of the files
  uint64_t max_shard_bytes = kDefaultShardBytes;  // larger models are cut into several files
  // The run's LoRA adapters alone, in the format of peft, not the merged model.
  bool adapter = false;
};

struct ExportedModel {
  std::filesystem::path from;  // the folder of the model
  std::string family;          // of Hugging Face's models: "gpt2"
};

// Writes the model that `specification` names as a Hugging Face folder that transformers opens,
// its transformed layers as the dense weights they multiply by, or its adapters. The folder appears
// when it is whole. Fails where `out` holds anything already, and where transformers has no model
// that computes this one.
ExportedModel export_model(const std::string& specification, const std::filesystem::path& out,
                           const ExportOptions& options);

// As one GGUF file, with matrices of `type` (kGgufF32, ...), for programs such as llama.cpp. Fails
// where `out` is there already, and for models that are not like Llama.
ExportedModel export_gguf(const std::string& specification, const std::filesystem::path& out,
                          uint32_t type);

// Either, as `refract export` takes it in words. Fails (usage) where they don't go together.
struct ExportRequest {
  std::string model, out;
  std::string format = "huggingface";  // or "gguf"
  std::string dtype = "float32";       // of GGUF also "q8_0"
  std::string shard_size;              // "5GB"; empty: as ExportOptions
  bool adapter = false;
};
ExportedModel export_as(const ExportRequest& request);

}  // namespace refract
