#include "formats/gguf/gguf_write.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/max.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/gguf/gguf_header.h"
#include "core/system/new_file.h"
#include "core/untrusted.h"
#include "formats/checkpoint_layout.h"
#include "formats/gguf/dequantize.h"
#include "formats/gguf/gguf_config.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_window.h"
#include "text/gguf/write_tokenizer.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr std::string_view kWindowNote =
    "its sliding window is written, but programs that know no window of this architecture "
    "(transformers is one) attend to everything in a longer text";

// general.file_type: what most of the tensors are.
uint32_t file_type(uint32_t type) {
  if (type == kGgufF16) return 1;
  if (type == kGgufQ8_0) return 7;
  if (type == kGgufBF16) return 32;
  return 0;
}

const GgufType& stored_type(const TensorSource& tensor, uint32_t wanted) {
  const uint64_t row = tensor.shape.empty() ? 1 : static_cast<uint64_t>(tensor.shape.back());
  uint32_t number = tensor.shape.size() < 2 ? kGgufF32 : wanted;
  if (row % find_gguf_type(number)->elements != 0) number = kGgufF16;
  return *find_gguf_type(number);
}

uint64_t stored_bytes(const TensorSource& tensor, const GgufType& type) {
  uint64_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= static_cast<uint64_t>(size);
  return elements / type.elements * type.bytes;
}

uint64_t aligned(uint64_t bytes) {
  return (bytes + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

std::string header_bytes(const GgufMetadataWriter& settings,
                         const std::vector<TensorSource>& tensors, uint32_t wanted) {
  std::string header = "GGUF";
  append_gguf(header, uint32_t{3});
  append_gguf(header, static_cast<uint64_t>(tensors.size()));
  append_gguf(header, settings.count());
  header += settings.bytes();
  uint64_t offset = 0;
  for (const TensorSource& tensor : tensors) {
    const GgufType& type = stored_type(tensor, wanted);
    append_gguf_text(header, tensor.name);
    append_gguf(header, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i > 0; --i)
      append_gguf(header, static_cast<uint64_t>(tensor.shape[i - 1]));
    append_gguf(header, type.number);
    append_gguf(header, offset);
    offset += aligned(stored_bytes(tensor, type));
  }
  header.append(aligned(header.size()) - header.size(), '\0');
  return header;
}

std::string q8_0_bytes(const TensorSource& source, const at::Tensor& values) {
  constexpr float kLargestScale = 65504;  // of float16
  const float largest = at::max(at::abs(values)).item<float>();
  if (!(largest <= 127 * kLargestScale))
    fail("the tensor '{}' has elements of magnitude {}, which Q8_0 can't hold", source.name,
         largest);
  std::string bytes(stored_bytes(source, *find_gguf_type(kGgufQ8_0)), '\0');
  quantize_q8_0(values.const_data_ptr<float>(), values.numel(),
                reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

void write_values(NewFile& file, const TensorSource& source, const GgufType& type) {
  at::Tensor values = source.make().detach();
  if (values.sizes() != at::IntArrayRef(source.shape)) {
    throw std::logic_error(
        fmt::format("tensor '{}' is not of the shape it was announced with", source.name));
  }
  const at::ScalarType dtype = type.number == kGgufF16    ? at::kHalf
                               : type.number == kGgufBF16 ? at::kBFloat16
                                                          : at::kFloat;
  values = values.to(at::kCPU, dtype).contiguous();
  if (dtype == at::kHalf && !at::isfinite(values).all().item<bool>())
    fail("the tensor '{}' has elements that F16 can't hold; write it as bfloat16 or float32",
         source.name);
  uint64_t written = values.nbytes();
  if (type.number == kGgufQ8_0) {
    const std::string bytes = q8_0_bytes(source, values);
    file.write(bytes);
    written = bytes.size();
  } else {
    file.write({static_cast<const char*>(values.const_data_ptr()), values.nbytes()});
  }
  file.write(std::string(aligned(written) - written, '\0'));
}

// [H, 2, D / 2] in the rows to [H, D / 2, 2].
at::Tensor halves_together(const at::Tensor& rows, int64_t heads) {
  std::vector<int64_t> shape = {heads, 2, rows.size(0) / heads / 2};
  shape.insert(shape.end(), rows.sizes().begin() + 1, rows.sizes().end());
  return rows.reshape(shape).transpose(1, 2).reshape(rows.sizes());
}

// The tensors of a Hugging Face folder under their names here.
std::vector<TensorSource> gguf_tensors(const Decoder& decoder, const std::string& family) {
  const bool interleaved = gguf_architecture_of(family)->interleaved;
  std::vector<TensorSource> all = checkpoint_tensors(
      decoder, family, at::kFloat,
      [&](const Parameter* parameter) { return decoder.arena().value(parameter); },
      /*merge=*/true);
  for (TensorSource& tensor : all) {
    const auto name = gguf_name_of_hf(tensor.name);
    if (!name) fail("GGUF has no name for the tensor '{}'", tensor.name);
    if (interleaved && is_query_or_key(tensor.name)) {
      const ModelConfig& config = decoder.config();
      const bool key = tensor.name.find(".k_proj.") != std::string::npos;
      const int64_t heads = key ? config.num_key_value_heads : config.num_attention_heads;
      tensor.make = [make = std::move(tensor.make), heads] {
        return halves_together(make(), heads);
      };
    }
    tensor.name = *name;
  }
  return all;
}

TensorSource rope_source(const std::vector<float>& divisors) {
  const auto size = static_cast<int64_t>(divisors.size());
  const at::Tensor values =
      at::from_blob(const_cast<float*>(divisors.data()), {size}, at::kFloat).clone();
  return source_of(std::string(kRopeDivisors), values);
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const GgufMetadataWriter& settings,
                const std::vector<TensorSource>& tensors, uint32_t type) {
  NewFile file(path);
  file.write(header_bytes(settings, tensors, type));
  for (const TensorSource& tensor : tensors) write_values(file, tensor, stored_type(tensor, type));
  file.commit();
}

std::string save_gguf(Decoder& decoder, const std::filesystem::path& path,
                      const GgufSaveOptions& options) {
  const GgufArchitecture* architecture = gguf_architecture_of(options.family);
  if (!architecture)
    fail("a model of the family {} can't be written as GGUF; those like Llama can", options.family);
  GgufMetadataWriter settings;
  settings.add_text("general.architecture", architecture->name);
  settings.add_text("general.type", "model");
  settings.add_text("general.name", options.name);
  settings.add_whole("general.file_type", file_type(options.type));
  if (options.type == kGgufQ8_0) settings.add_whole("general.quantization_version", 2);
  std::string note;
  std::vector<float> divisors;
  try {
    const json config = parse_json(options.config, "config.json");
    divisors = add_gguf_config(settings, config);
    if (!options.tokenizer.empty())
      note = add_gguf_tokenizer(settings, options.tokenizer, decoder.config().vocab_size,
                                options.config);
    if (add_gguf_window(settings, architecture->name, config)) {
      if (!note.empty()) note.append("; ");
      note.append(kWindowNote);
    }
  } catch (const json::exception& error) {
    fail("can't write '{}': the model's configuration or tokenizer is not as expected: {}",
         path.string(), error.what());
  }
  std::vector<TensorSource> tensors = gguf_tensors(decoder, options.family);
  if (!divisors.empty()) tensors.insert(tensors.begin(), rope_source(divisors));
  write_gguf(path, settings, tensors, options.type);
  return note;
}

}  // namespace refract
