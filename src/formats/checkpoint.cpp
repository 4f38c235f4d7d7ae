#include "formats/checkpoint.h"

#include <ATen/ops/equal.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "formats/families/gpt_neox.h"
#include "formats/gguf/gguf_config.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string dtype_name(at::ScalarType dtype) {
  if (dtype == at::kFloat) return "float32";
  if (dtype == at::kBFloat16) return "bfloat16";
  if (dtype == at::kHalf) return "float16";
  if (dtype == at::kDouble) return "float64";
  fail_usage("a model can't be saved as {}; choose float32, bfloat16 or float16",
             c10::toString(dtype));
}

std::string choose_format(const Decoder& decoder, const SaveOptions& options) {
  if (options.format != "auto") return options.format;
  const HfFamily family = carried_family(decoder.config(), options.carried);
  const bool fits = !family.name.empty() && why_not(decoder, family.name, options.merge).empty();
  return fits ? family.name : "refract";
}

void check_mergeable(const Decoder& decoder) {
  for (const TransformedLayer& entry : decoder.transformed()) {
    if (!entry.layer->merged().defined()) {
      fail("'{}' can't be merged: the kind \"{}\" has no dense weight that computes the same",
           entry.spec.name, entry.kind);
    }
  }
}

// As it was where the model came from. If nothing was there, transformers takes the settings from
// config.json, which has all that the folder's had.
void write_generation_config(const SaveOptions& options, const fs::path& folder) {
  const fs::path path = folder / "generation_config.json";
  if (!options.carried.generation.empty()) {
    write_file_atomically(path, options.carried.generation);
  } else if (options.carried.config.empty()) {
    write_file_atomically(path, generation_config_json(options.ids).dump(2) + "\n");
  }
}

}  // namespace

void save_model(Decoder& decoder, const fs::path& folder, const SaveOptions& options) {
  const std::string dtype = dtype_name(options.dtype);
  const std::string format = choose_format(decoder, options);
  if (options.merge) check_mergeable(decoder);
  std::vector<TensorSource> tensors = checkpoint_tensors(
      decoder, format, options.dtype,
      [&](const Parameter* parameter) { return decoder.arena().value(parameter); }, options.merge);
  std::vector<TensorSource> buffers;
  if (!options.merge) {  // a merged model is dense and keeps no ranges or counters
    for (const BufferStore::Buffer& buffer : decoder.buffers().all()) {
      buffers.push_back(source_of(buffer.name, buffer.tensor));
    }
  }
  fs::create_directories(folder);
  if (format == "refract") {
    tensors.insert(tensors.end(), buffers.begin(), buffers.end());
    buffers.clear();
  }
  if (buffers.empty()) {
    fs::remove(folder / kBufferFile);
  } else {
    write_safetensors(folder / kBufferFile, buffers);
  }
  save_tensors(folder, tensors, options.max_shard_bytes);
  write_side_files(options.carried, folder);
  json config = config_to_json(decoder.config(), format, dtype, options.ids);
  carry_config(config, options.carried, format);
  write_generation_config(options, folder);
  write_file_atomically(folder / "config.json", config.dump(2) + "\n");
}

CheckpointReader::CheckpointReader(const fs::path& folder)
    : folder_(folder), config_(read_model_config(folder)), tensors_(folder) {
  const std::string format = model_type_of(read_config_json(folder), config_place(folder));
  for (const TensorInfo* info : tensors_.tensors()) {
    for (const StoredName& name : our_names(format, info->name)) add(*info, name);
  }
  drop_tied_head();
}

void CheckpointReader::add(const TensorInfo& info, const StoredName& name) {
  const bool matrix = !name.transposed || info.shape.size() == 2;
  const int64_t pieces = name.parts * (name.by_heads ? config_.num_attention_heads : 1);
  const bool divides =
      pieces == 1 || (!info.shape.empty() &&
                      (name.transposed ? info.shape.back() : info.shape.front()) % pieces == 0);
  if (!matrix || !divides) {
    fail("'{}': tensor '{}' is {}, which can't hold {} x '{}'",
         tensors_.file_of(info.name).string(), info.name, info.describe(), name.parts, name.ours);
  }
  const auto [entry, fresh] = entries_.try_emplace(name.ours, Entry{info.name, name});
  if (!fresh) {
    fail("'{}': the tensors '{}' and '{}' are both '{}'", folder_.string(), entry->second.stored,
         info.name, name.ours);
  }
}

// A tied model's file may still hold the head: the same weights again (ignored, as transformers
// does), or the only copy.
void CheckpointReader::drop_tied_head() {
  const std::string head = "lm_head.weight", embedding = "model.embed_tokens.weight";
  if (!config_.tie_word_embeddings || !contains(head)) return;
  if (!contains(embedding)) {
    entries_[embedding] = entries_[head];
  } else if (!at::equal(read(head), read(embedding))) {
    fail(
        "'{}': config.json says that lm_head is tied to the token embedding, but the file holds "
        "another lm_head.weight; "
        "set tie_word_embeddings to false in config.json",
        folder_.string());
  }
  entries_.erase(head);
}

const CheckpointReader::Entry& CheckpointReader::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("'{}' holds no '{}'", folder_.string(), name);
  return found->second;
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> all;
  for (const auto& [name, entry] : entries_) all.push_back(name);
  return all;
}

std::vector<int64_t> CheckpointReader::shape(const std::string& name) const {
  const Entry& found = entry(name);
  std::vector<int64_t> shape = tensors_.find(found.stored)->shape;
  if (found.place.transposed) std::swap(shape[0], shape[1]);
  if (found.place.parts > 1) shape[0] /= found.place.parts;
  return shape;
}

at::ScalarType CheckpointReader::dtype(const std::string& name) const {
  return tensors_.find(entry(name).stored)->dtype;
}

at::Tensor CheckpointReader::read(const std::string& name) const {
  const Entry& found = entry(name);
  at::Tensor tensor = tensors_.tensor(found.stored);
  if (found.place.transposed) tensor = tensor.t();
  if (found.place.parts == 1) return tensor;
  if (found.place.by_heads) {
    return part_of_heads(tensor, found.place.part, config_.num_attention_heads,
                         config_.rotary_width());
  }
  const int64_t rows = tensor.size(0) / found.place.parts;
  return tensor.narrow(0, found.place.part * rows, rows);
}

std::string CheckpointReader::describe(const std::string& name) const {
  const Entry& found = entry(name);
  return fmt::format("'{}' {}", found.stored, tensors_.find(found.stored)->describe());
}

void CheckpointReader::release(const std::string& name) const {
  tensors_.release(entry(name).stored);
}

}  // namespace refract
