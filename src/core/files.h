// Files: whole reads, durable writes, memory maps.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"

namespace refract {

// The system refused a call on a file: the machine's state, not what the file holds.
class SystemError : public Error {
 public:
  SystemError(const std::string& message, int code) : Error(message), code_(code) {}
  int system_code() const { return code_; }  // errno

 private:
  int code_;
};

// The whole file as bytes. `what` names it in the error ("the tokenizer", "the recipe"), which is a
// SystemError.
std::string read_file(const std::filesystem::path& path, std::string_view what = "the file");

// Writes beside the name, syncs and renames, so that a reader sees the old or the new file, never
// half of one.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// Opens a new file for writing beside `path`, under a name that nobody else has and that ends in
// ".partial": never an existing file, never through a link. `partial` is set to the name. -1 with
// errno where the system refuses. Partial files of `path` that killed processes left are removed;
// keep the file open until it is renamed, for that tells a living writer's from theirs.
int open_partial(const std::filesystem::path& path, std::filesystem::path& partial);

// Flushes a file or folder to the disk.
void sync_path(const std::filesystem::path& path);

// A read-only memory map; the file may be larger than memory. Throws SystemError.
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
