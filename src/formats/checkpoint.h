// A decoder's weights in a folder: Hugging Face's GPT-2 or Llama layout, or our own names
// ("refract").
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "formats/checkpoint_layout.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "model/decoder.h"

namespace refract {

// Persistent buffers of a model whose weights are in a Hugging Face layout.
inline constexpr const char* kBufferFile = "buffers.safetensors";

// What a tensor of a checkpoint is made from: parameters by our names, stacked on dimension 0, then
// transposed where the layout stores [in, out] (GPT-2's Conv1D).
struct StoredTensor {
  std::string name;                // in the file
  std::vector<std::string> parts;  // ours
  bool transposed = false;
};

// The tensors of a checkpoint in `format`, in its order: "gpt2" or "llama" need a decoder for which
// why_not returns nothing; "refract" holds every parameter under its own name.
std::vector<StoredTensor> checkpoint_layout(const Decoder& decoder, const std::string& format,
                                            bool merge = false);

// Why Hugging Face's `format` can't hold this decoder: a setting it has no word for, or a parameter
// of a layer that is not standard. Empty if it can. With `merge` transformed layers count as their
// merged dense weights.
std::string why_not(const Decoder& decoder, const std::string& format, bool merge = false);

// The tensors of a checkpoint with what `read` returns for each parameter (its value, its
// gradient).
std::vector<TensorSource> checkpoint_tensors(
    const Decoder& decoder, const std::string& format, at::ScalarType dtype,
    const std::function<at::Tensor(const Parameter*)>& read, bool merge = false);

struct SaveOptions {
  at::ScalarType dtype = at::kFloat;  // of the file; bf16 halves it
  uint64_t max_shard_bytes = kDefaultShardBytes;
  // "auto": the Hugging Face family where there is one and every parameter has its place in it,
  // otherwise "refract". "gpt2" or "llama": that, or an Error with the reason.
  std::string format = "auto";
  TokenIds ids = {};  // written to config.json and generation_config.json
  // Transformed layers are written as the dense weight they multiply by. Fails for one that has
  // none.
  bool merge = false;
};

// Writes config.json, generation_config.json, model.safetensors (or shards and their index) and,
// for a Hugging Face format with persistent buffers, buffers.safetensors. Each file appears whole
// or not at all, config.json last. Creates the folder.
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

// Reads every parameter of the decoder (converted to the master dtype) and the buffers that the
// folder holds. Missing, unexpected and mis-shaped tensors are one Error that lists the first few.
// The decoder must be allocated.
void load_weights(Decoder& decoder, const std::filesystem::path& folder);

// How well a layer stands for the dense weight it started from.
struct TakenOver {
  std::string name, kind;
  double relative_error = 0;  // |W' - W| / |W|, Frobenius norm
};

// The same for a run that starts from the folder: a transformed layer whose parameters the folder
// lacks takes over the dense "<name>.weight" that it holds instead (LinearLayer::take_over).
// Parameters of the layer that this leaves alone (an adapter's) keep their values, so initialize()
// comes first.
std::vector<TakenOver> start_from_weights(Decoder& decoder, const std::filesystem::path& folder);

// Where the model that `spec` names lies: an existing model folder; of a run folder its newest
// complete checkpoint
// (<run>/checkpoints/step-*); a Hub id "org/name" or "org/name@revision" in the Hugging Face cache.
std::filesystem::path resolve_model_path(const std::string& spec);

}  // namespace refract
