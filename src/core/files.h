// Files: whole reads, durable writes, memory maps.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace refract {

// The whole file as bytes. `what` names it in the error ("the tokenizer", "the recipe").
std::string read_file(const std::filesystem::path& path, std::string_view what = "the file");

// Writes beside the name, syncs and renames, so that a reader sees the old or the new file, never
// half of one.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// Flushes a file or folder to the disk.
void sync_path(const std::filesystem::path& path);

// A read-only memory map; the file may be larger than memory.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Lets the system drop the pages in [begin, end) bytes, so that resident memory stays flat.
  void release(size_t begin, size_t end) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace refract
