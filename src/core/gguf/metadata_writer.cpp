#include "core/gguf/metadata_writer.h"

namespace refract {

void append_gguf_text(std::string& out, std::string_view text) {
  append_gguf(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

void GgufMetadataWriter::begin(std::string_view key, GgufKind kind) {
  append_gguf_text(bytes_, key);
  append_gguf(bytes_, static_cast<uint32_t>(kind));
  ++count_;
}

void GgufMetadataWriter::begin_list(std::string_view key, GgufKind element, size_t count) {
  begin(key, GgufKind::kList);
  append_gguf(bytes_, static_cast<uint32_t>(element));
  append_gguf(bytes_, static_cast<uint64_t>(count));
}

void GgufMetadataWriter::add_whole(std::string_view key, uint32_t value) {
  begin(key, GgufKind::kU32);
  append_gguf(bytes_, value);
}

void GgufMetadataWriter::add_number(std::string_view key, float value) {
  begin(key, GgufKind::kF32);
  append_gguf(bytes_, value);
}

void GgufMetadataWriter::add_flag(std::string_view key, bool value) {
  begin(key, GgufKind::kBool);
  append_gguf(bytes_, static_cast<uint8_t>(value ? 1 : 0));
}

void GgufMetadataWriter::add_text(std::string_view key, std::string_view value) {
  begin(key, GgufKind::kText);
  append_gguf_text(bytes_, value);
}

void GgufMetadataWriter::add_texts(std::string_view key, std::span<const std::string> values) {
  begin_list(key, GgufKind::kText, values.size());
  for (const std::string& value : values) append_gguf_text(bytes_, value);
}

void GgufMetadataWriter::add_wholes(std::string_view key, std::span<const int32_t> values) {
  begin_list(key, GgufKind::kI32, values.size());
  for (const int32_t value : values) append_gguf(bytes_, value);
}

void GgufMetadataWriter::add_numbers(std::string_view key, std::span<const float> values) {
  begin_list(key, GgufKind::kF32, values.size());
  for (const float value : values) append_gguf(bytes_, value);
}

void GgufMetadataWriter::add_flags(std::string_view key, std::span<const uint8_t> values) {
  begin_list(key, GgufKind::kBool, values.size());
  for (const uint8_t value : values) append_gguf(bytes_, value);
}

}  // namespace refract
