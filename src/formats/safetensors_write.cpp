#include "formats/safetensors_write.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/system/new_file.h"
#include "core/untrusted.h"
#include "formats/safetensors.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// The header with its length, padded with spaces so that the data begins at a multiple of 8 bytes.
std::string header_of(const std::vector<TensorSource>& tensors, const Metadata& metadata) {
  std::string header = "{";
  auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  if (!metadata.empty()) header += "\"__metadata__\":" + nlohmann::json(metadata).dump() + ",";
  uint64_t offset = 0;
  for (const TensorSource& tensor : tensors) {
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},",
                          quoted(tensor.name), safetensors_dtype(tensor.dtype),
                          fmt::join(tensor.shape, ","), offset, offset + tensor.bytes());
    offset += tensor.bytes();
  }
  if (header.back() == ',') header.pop_back();
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  const uint64_t length = header.size();
  std::string prefix(sizeof(length), '\0');
  std::memcpy(prefix.data(), &length, sizeof(length));
  return prefix + header;
}

void write_tensor(NewFile& file, const TensorSource& source) {
  at::Tensor tensor = source.make().detach();
  if (tensor.sizes() != at::IntArrayRef(source.shape)) {
    throw std::logic_error(
        fmt::format("tensor '{}' is not of the shape it was announced with", source.name));
  }
  tensor = tensor.to(at::kCPU, source.dtype).contiguous();
  file.write({static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()});
}

constexpr const char* kWhole = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// The files of the model that a folder holds: what its index names, nothing by its looks.
std::set<std::string> files_of_model(const fs::path& folder) {
  std::set<std::string> files = {kWhole, kIndex};
  if (!fs::exists(folder / kIndex)) return files;
  const nlohmann::json index =
      parse_json(read_file(folder / kIndex), fmt::format("'{}'", (folder / kIndex).string()));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object()) return files;
  for (const nlohmann::json& file : *map) {
    if (!file.is_string()) continue;
    const fs::path name = file.get<std::string>();
    if (name == name.filename() && name.extension() == ".safetensors") files.insert(name);
  }
  return files;
}

void remove_stale_files(const fs::path& folder, const std::set<std::string>& old,
                        const std::set<std::string>& written) {
  for (const std::string& name : old) {
    if (!written.contains(name)) fs::remove(folder / name);
  }
}

void check_names(const fs::path& path, const std::vector<TensorSource>& tensors) {
  std::set<std::string_view> names;
  for (const TensorSource& tensor : tensors) {
    if (tensor.name == "__metadata__")
      fail("can't write '{}': a tensor is named __metadata__", path.string());
    if (!names.insert(tensor.name).second) {
      fail("can't write '{}': two tensors are named '{}'", path.string(), tensor.name);
    }
  }
}

}  // namespace

uint64_t TensorSource::bytes() const {
  uint64_t n = c10::elementSize(dtype);
  for (int64_t size : shape) n *= static_cast<uint64_t>(size);
  return n;
}

TensorSource source_of(std::string name, const at::Tensor& tensor) {
  return {std::move(name), tensor.scalar_type(), tensor.sizes().vec(), [tensor] { return tensor; }};
}

void write_safetensors(const fs::path& path, std::vector<TensorSource> tensors,
                       const Metadata& metadata) {
  check_names(path, tensors);
  std::ranges::sort(tensors, {}, [](const TensorSource& tensor) {
    return std::pair(safetensors_order(tensor.dtype), std::string_view(tensor.name));
  });
  NewFile file(path);
  file.write(header_of(tensors, metadata));
  for (const TensorSource& tensor : tensors) write_tensor(file, tensor);
  file.commit();
}

void save_tensors(const fs::path& folder, const std::vector<TensorSource>& tensors,
                  uint64_t max_shard_bytes) {
  check_names(folder, tensors);
  const std::set<std::string> old = files_of_model(folder);
  std::vector<std::vector<TensorSource>> shards(1);
  uint64_t total = 0, in_shard = 0;
  for (const TensorSource& tensor : tensors) {
    if (!shards.back().empty() && in_shard + tensor.bytes() > max_shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(tensor);
    in_shard += tensor.bytes();
    total += tensor.bytes();
  }
  if (shards.size() == 1) {
    write_safetensors(folder / kWhole, std::move(shards[0]));
    remove_stale_files(folder, old, {kWhole});
    return;
  }
  std::set<std::string> written = {kIndex};
  nlohmann::json weight_map = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const TensorSource& tensor : shards[i]) weight_map[tensor.name] = name;
    write_safetensors(folder / name, std::move(shards[i]));
    written.insert(name);
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  write_file_atomically(folder / kIndex, index.dump(2) + "\n");
  remove_stale_files(folder, old, written);
}

}  // namespace refract
