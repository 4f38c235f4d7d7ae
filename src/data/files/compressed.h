// Compressed files, read from the beginning to the end: gzip (.gz) and zstd (.zst).
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace refract {

class CompressedFile {
 public:
  virtual ~CompressedFile() = default;
  // Appends the next piece of the content; false at its end. Fails, naming the file, for one that
  // is cut off or damaged.
  virtual bool read(std::string& out) = 0;
  // Of the file itself, not of its content.
  virtual int64_t bytes_read() const = 0;
};

// Whether the name of a file says that it is compressed: it ends in .gz or .zst, in any case.
bool is_compressed(const std::filesystem::path& path);

// Several members or frames, one after the other, are one content. zstd is opened when it is first
// needed, from the library that every Debian and Ubuntu has.
std::unique_ptr<CompressedFile> open_compressed(const std::filesystem::path& path);

}  // namespace refract
