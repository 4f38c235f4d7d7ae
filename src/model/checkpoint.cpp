#include "model/checkpoint.h"

#include <ATen/ops/equal.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
constexpr const char* kBufferFile = "buffers.safetensors";

std::string dtype_name(at::ScalarType dtype) {
  if (dtype == at::kFloat) return "float32";
  if (dtype == at::kBFloat16) return "bfloat16";
  if (dtype == at::kHalf) return "float16";
  if (dtype == at::kDouble) return "float64";
  fail_usage("a model can't be saved as {}; choose float32, bfloat16 or float16",
             c10::toString(dtype));
}

bool is_weight(at::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kFloat || dtype == at::kHalf ||
         dtype == at::kBFloat16;
}

std::string choose_format(const Decoder& decoder, const std::string& wanted) {
  if (wanted != "auto") return wanted;
  const HfFamily family = hf_family(decoder.config());
  return !family.name.empty() && why_not(decoder, family.name).empty() ? family.name : "refract";
}

// Complaints about many tensors in one line: the first few and how many more.
class Complaints {
 public:
  void add(std::string text) {
    if (++count_ <= 4) shown_.push_back(std::move(text));
  }
  bool any() const { return count_ > 0; }
  std::string text() const {
    std::string all = fmt::format("{}", fmt::join(shown_, "; "));
    if (count_ > shown_.size()) all += fmt::format("; and {} more", count_ - shown_.size());
    return all;
  }

 private:
  std::vector<std::string> shown_;
  size_t count_ = 0;
};

// A tensor's name and shape where its buffer expects something else; empty if it fits.
std::string buffer_complaint(const BufferStore::Buffer& buffer, const TensorInfo& info) {
  if (buffer.tensor.sizes() == at::IntArrayRef(info.shape)) return "";
  return fmt::format("'{}' is {}, the model has [{}]", info.name, info.describe(),
                     fmt::join(buffer.tensor.sizes(), ", "));
}

void load_buffer_file(Decoder& decoder, const fs::path& path, Complaints& complaints) {
  if (!fs::exists(path)) return;
  const SafetensorsFile file(path);
  for (const TensorInfo& info : file.tensors()) {
    const auto buffers = decoder.buffers().find(info.name);
    if (!buffers) {
      complaints.add(fmt::format("'{}' of {} is no buffer of the model", info.name, kBufferFile));
    } else if (std::string wrong = buffer_complaint(*buffers, info); !wrong.empty()) {
      complaints.add(std::move(wrong));
    } else {
      buffers->tensor.copy_(file.tensor(info.name));
    }
  }
}

}  // namespace

void save_model(Decoder& decoder, const fs::path& folder, const SaveOptions& options) {
  const std::string dtype = dtype_name(options.dtype);
  const std::string format = choose_format(decoder, options.format);
  std::vector<TensorSource> tensors = checkpoint_tensors(
      decoder, format, options.dtype,
      [&](const Parameter* parameter) { return decoder.arena().value(parameter); });
  std::vector<TensorSource> buffers;
  for (const BufferStore::Buffer& buffer : decoder.buffers().all()) {
    buffers.push_back(source_of(buffer.name, buffer.tensor));
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
  write_file_atomically(folder / "generation_config.json",
                        generation_config_json(options.ids).dump(2) + "\n");
  write_file_atomically(
      folder / "config.json",
      config_to_json(decoder.config(), format, dtype, options.ids).dump(2) + "\n");
}

CheckpointReader::CheckpointReader(const fs::path& folder)
    : folder_(folder), config_(read_model_config(folder)), tensors_(folder) {
  const std::string format =
      model_type_of(read_config_json(folder), (folder / "config.json").string());
  for (const TensorInfo* info : tensors_.tensors()) {
    for (const StoredName& name : our_names(format, info->name)) add(*info, name);
  }
  drop_tied_head();
}

void CheckpointReader::add(const TensorInfo& info, const StoredName& name) {
  const bool matrix = !name.transposed || info.shape.size() == 2;
  const bool divides =
      name.parts == 1 || (!info.shape.empty() && info.shape.back() % name.parts == 0);
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

void load_weights(Decoder& decoder, const fs::path& folder) {
  const CheckpointReader reader(folder);
  Complaints missing, wrong, unexpected;
  for (const Parameter& parameter : decoder.arena().parameters()) {
    const std::string wanted =
        fmt::format("'{}' [{}]", parameter.name, fmt::join(parameter.shape, ", "));
    if (!reader.contains(parameter.name)) {
      missing.add(wanted);
    } else if (reader.shape(parameter.name) != parameter.shape ||
               !is_weight(reader.dtype(parameter.name))) {
      wrong.add(fmt::format("{} where the model has {}", reader.describe(parameter.name), wanted));
    }
  }
  std::vector<BufferStore::Buffer*> buffers;  // of our own format, among the parameters
  for (const std::string& name : reader.names()) {
    if (decoder.arena().find(name)) continue;
    BufferStore::Buffer* buffer = decoder.buffers().find(name);
    if (!buffer) {
      unexpected.add(reader.describe(name));
    } else if (buffer->tensor.sizes() != at::IntArrayRef(reader.shape(name))) {
      wrong.add(fmt::format("{} where the model has a buffer [{}]", reader.describe(name),
                            fmt::join(buffer->tensor.sizes(), ", ")));
    } else {
      buffers.push_back(buffer);
    }
  }
  std::string complaint;
  if (missing.any()) complaint += "; missing: " + missing.text();
  if (wrong.any()) complaint += "; of another shape or type: " + wrong.text();
  if (unexpected.any()) complaint += "; not part of the model: " + unexpected.text();
  if (!complaint.empty())
    fail("the weights in '{}' don't fit the model{}", folder.string(), complaint);
  Complaints bad_buffers;
  load_buffer_file(decoder, folder / kBufferFile, bad_buffers);
  if (bad_buffers.any())
    fail("the buffers in '{}' don't fit the model: {}", folder.string(), bad_buffers.text());
  for (BufferStore::Buffer* buffer : buffers) buffer->tensor.copy_(reader.read(buffer->name));
  for (const Parameter& parameter : decoder.arena().parameters()) {
    decoder.arena().value(&parameter).copy_(reader.read(parameter.name));
    reader.release(parameter.name);
  }
  decoder.arena().refresh_compute();
}

}  // namespace refract
