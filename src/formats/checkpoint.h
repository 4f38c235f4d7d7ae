// A model folder: a decoder's weights in the layout of a Hugging Face family or under our own names
// ("refract"), with its configuration. load_weights.h reads the weights into a
// decoder.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "formats/carried.h"
#include "formats/checkpoint_layout.h"
#include "formats/hf_config.h"
#include "formats/safetensors_write.h"
#include "formats/tensor_folder.h"
#include "model/decoder.h"

namespace refract {

// Persistent buffers of a model whose weights are in a Hugging Face layout.
inline constexpr const char* kBufferFile = "buffers.safetensors";

struct SaveOptions {
  at::ScalarType dtype = at::kFloat;  // of the file; bf16 halves it
  uint64_t max_shard_bytes = kDefaultShardBytes;
  // "auto": the Hugging Face family (carried_family()) where there is one and every parameter has
  // its place in it, otherwise "refract". A family's model_type ("gpt2"): that, or an Error with
  // the reason.
  std::string format = "auto";
  TokenIds ids = {};     // written to config.json and generation_config.json
  Carried carried = {};  // of the folder that the model came from; its ids come before `ids`
  // Transformed layers are written as the dense weight they multiply by. Fails for one that has
  // none.
  bool merge = false;
};

// Writes what is carried, config.json, generation_config.json, model.safetensors (or shards and
// their index) and, for a Hugging Face format with persistent buffers, buffers.safetensors. Each
// file appears whole or not at all, config.json last. Creates the folder.
void save_model(Decoder& decoder, const std::filesystem::path& folder,
                const SaveOptions& options = {});

// The dense weights of a folder under our parameter names, whatever their layout in the file.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& folder);

  const ModelConfig& config() const { return config_; }
  const std::filesystem::path& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const { return entries_.contains(name); }
  std::vector<int64_t> shape(const std::string& name) const;
  at::ScalarType dtype(const std::string& name) const;
  // On the CPU, in the file's dtype; READ ONLY and possibly not contiguous.
  at::Tensor read(const std::string& name) const;
  // "F32 [64, 192] as 'transformer.h.0.attn.c_attn.weight'", for messages.
  std::string describe(const std::string& name) const;
  void release(const std::string& name) const;

 private:
  struct Entry {
    std::string stored;  // the file's name for the tensor it is in
    StoredName place = {};
  };
  void add(const TensorInfo& info, const StoredName& name);
  void drop_tied_head();
  const Entry& entry(const std::string& name) const;

  std::filesystem::path folder_;
  ModelConfig config_;
  TensorFolder tensors_;
  std::map<std::string, Entry> entries_;
};

}  // namespace refract
