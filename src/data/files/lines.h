// The lines of a text file, plain or compressed.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

namespace refract {

class Lines {
 public:
  virtual ~Lines() = default;
  // The next line without its '\n'; good until the next call. Memory stays bounded by a line.
  virtual std::optional<std::string_view> next() = 0;
  virtual int64_t bytes_read() const = 0;  // of the file itself
};

std::unique_ptr<Lines> open_lines(const std::filesystem::path& path);

}  // namespace refract
