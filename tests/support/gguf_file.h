// GGUF files put together by hand, byte by byte, honest or not.
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace refract::testing {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

inline std::string gguf_text(std::string_view text) {
  return raw(static_cast<uint64_t>(text.size())) + std::string(text);
}

struct GgufFile {
  struct Tensor {
    std::string name;
    std::vector<uint64_t> sizes;  // innermost first, as the file has them
    uint32_t type = 0;
    std::string bytes;
    std::optional<uint64_t> offset = {};  // where it says that it begins, if not where it does
  };

  uint32_t version = 3;
  std::vector<std::string> settings;  // name, kind and value of each
  std::vector<Tensor> tensors;
  int64_t counts[2] = {-1, -1};  // of tensors and settings; -1: the right ones
  uint64_t alignment = 32;

  void set(std::string_view key, uint32_t kind, const std::string& value) {
    settings.push_back(gguf_text(key) + raw(kind) + value);
  }
  void whole(std::string_view key, uint32_t value) { set(key, 4, raw(value)); }
  void number(std::string_view key, float value) { set(key, 6, raw(value)); }
  void flag(std::string_view key, bool value) { set(key, 7, raw(static_cast<uint8_t>(value))); }
  void text(std::string_view key, std::string_view value) { set(key, 8, gguf_text(value)); }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    std::string list = raw(uint32_t{8}) + raw(static_cast<uint64_t>(values.size()));
    for (const std::string& value : values) list += gguf_text(value);
    set(key, 9, list);
  }
  template <class T>
  void list(std::string_view key, uint32_t kind, const std::vector<T>& values) {
    std::string list = raw(kind) + raw(static_cast<uint64_t>(values.size()));
    for (const T value : values) list += raw(value);
    set(key, 9, list);
  }
  void floats(const std::string& name, std::vector<uint64_t> sizes,
              const std::vector<float>& values) {
    std::string bytes;
    for (const float value : values) bytes += raw(value);
    tensors.push_back({name, std::move(sizes), 0, bytes});
  }

  std::string header() const {
    std::string out = "GGUF" + raw(version);
    out += raw(counts[0] < 0 ? static_cast<uint64_t>(tensors.size())
                             : static_cast<uint64_t>(counts[0]));
    out += raw(counts[1] < 0 ? static_cast<uint64_t>(settings.size())
                             : static_cast<uint64_t>(counts[1]));
    for (const std::string& setting : settings) out += setting;
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
      out += gguf_text(tensor.name) + raw(static_cast<uint32_t>(tensor.sizes.size()));
      for (const uint64_t size : tensor.sizes) out += raw(size);
      out += raw(tensor.type);
      out += raw(tensor.offset.value_or(offset));
      offset += padded(tensor.bytes.size());
    }
    return out;
  }

  std::string bytes() const {
    std::string out = header();
    out.resize(padded(out.size()));
    for (const Tensor& tensor : tensors) {
      out += tensor.bytes;
      out.resize(padded(out.size()));
    }
    return out;
  }

 private:
  uint64_t padded(uint64_t size) const { return (size + alignment - 1) / alignment * alignment; }
};

}  // namespace refract::testing
