#include "core/gguf/gguf_metadata.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

template <class T>
T load_as(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

// The shortest decimal that is this float, so that 1e-5 stays 1e-5 in double precision.
double shortest_decimal(float value) {
  char text[32];
  const auto written = std::to_chars(text, text + sizeof(text), value);
  double decimal = value;
  std::from_chars(text, written.ptr, decimal);
  return decimal;
}

}  // namespace

size_t gguf_width(GgufKind kind) {
  switch (kind) {
    case GgufKind::kU8:
    case GgufKind::kI8:
    case GgufKind::kBool:
      return 1;
    case GgufKind::kU16:
    case GgufKind::kI16:
      return 2;
    case GgufKind::kU32:
    case GgufKind::kI32:
    case GgufKind::kF32:
      return 4;
    case GgufKind::kU64:
    case GgufKind::kI64:
    case GgufKind::kF64:
      return 8;
    case GgufKind::kText:
    case GgufKind::kList:
      break;
  }
  return 0;
}

bool GgufMetadata::add(std::string key, const GgufValue& value) {
  return values_.try_emplace(std::move(key), value).second;
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

bool GgufMetadata::is_list(std::string_view key) const {
  const GgufValue* value = find(key);
  return value && value->kind == GgufKind::kList;
}

void GgufMetadata::complain(std::string_view key, std::string_view wanted) const {
  fail("'{}': the setting {} is not {}", where_, shown(key), wanted);
}

int64_t GgufMetadata::whole_of(GgufKind kind, const std::byte* data, std::string_view key) const {
  switch (kind) {
    case GgufKind::kU8:
    case GgufKind::kBool:
      return load_as<uint8_t>(data);
    case GgufKind::kI8:
      return load_as<int8_t>(data);
    case GgufKind::kU16:
      return load_as<uint16_t>(data);
    case GgufKind::kI16:
      return load_as<int16_t>(data);
    case GgufKind::kU32:
      return load_as<uint32_t>(data);
    case GgufKind::kI32:
      return load_as<int32_t>(data);
    case GgufKind::kI64:
      return load_as<int64_t>(data);
    case GgufKind::kU64:
      if (const auto value = load_as<uint64_t>(data);
          value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return static_cast<int64_t>(value);
      break;
    case GgufKind::kF32:
    case GgufKind::kF64:
    case GgufKind::kText:
    case GgufKind::kList:
      break;
  }
  complain(key, "a whole number below 2^63");
}

int64_t GgufMetadata::whole(std::string_view key, int64_t otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return otherwise;
  if (value->kind == GgufKind::kBool) complain(key, "a whole number");
  return whole_of(value->kind, value->bytes.data(), key);
}

int64_t GgufMetadata::whole(std::string_view key) const {
  if (!has(key)) fail("'{}' has no setting {}", where_, shown(key));
  return whole(key, 0);
}

double GgufMetadata::number(std::string_view key, double otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return otherwise;
  if (value->kind != GgufKind::kF32 && value->kind != GgufKind::kF64)
    return static_cast<double>(whole(key, 0));
  const double number = value->kind == GgufKind::kF32
                            ? static_cast<double>(load_as<float>(value->bytes.data()))
                            : load_as<double>(value->bytes.data());
  if (!std::isfinite(number)) complain(key, "a finite number");
  return value->kind == GgufKind::kF32 ? shortest_decimal(static_cast<float>(number)) : number;
}

bool GgufMetadata::flag(std::string_view key, bool otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return otherwise;
  if (value->kind != GgufKind::kBool) complain(key, "true or false");
  return load_as<uint8_t>(value->bytes.data()) != 0;
}

std::string GgufMetadata::text(std::string_view key, std::string_view otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return std::string(otherwise);
  if (value->kind != GgufKind::kText) complain(key, "a text");
  return {reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size()};
}

const GgufValue* GgufMetadata::find_list(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = find(key);
  if (value && value->kind != GgufKind::kList) complain(key, wanted);
  return value;
}

std::vector<std::string_view> GgufMetadata::texts(std::string_view key) const {
  const GgufValue* value = find_list(key, "a list of texts");
  if (!value) return {};
  if (value->element != GgufKind::kText) complain(key, "a list of texts");
  std::vector<std::string_view> all;
  all.reserve(value->count);
  const std::byte* at = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {  // the lengths were checked when the file was read
    const auto length = load_as<uint64_t>(at);
    all.emplace_back(reinterpret_cast<const char*>(at + sizeof(length)), length);
    at += sizeof(length) + length;
  }
  return all;
}

std::vector<int64_t> GgufMetadata::wholes(std::string_view key) const {
  const GgufValue* value = find_list(key, "a list of whole numbers");
  if (!value) return {};
  if (value->element == GgufKind::kText) complain(key, "a list of whole numbers");
  std::vector<int64_t> all;
  all.reserve(value->count);
  const size_t width = gguf_width(value->element);
  for (uint64_t i = 0; i < value->count; ++i)
    all.push_back(whole_of(value->element, value->bytes.data() + i * width, key));
  return all;
}

std::vector<float> GgufMetadata::numbers(std::string_view key) const {
  const GgufValue* value = find_list(key, "a list of numbers");
  if (!value) return {};
  if (value->element != GgufKind::kF32) complain(key, "a list of float32 numbers");
  std::vector<float> all;
  all.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i)
    all.push_back(load_as<float>(value->bytes.data() + i * sizeof(float)));
  return all;
}

}  // namespace refract
