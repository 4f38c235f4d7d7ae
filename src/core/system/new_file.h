// A file that appears under its name only when it is whole.
#pragma once
#include <filesystem>
#include <string_view>

namespace refract {

// What is written goes into a hidden file beside the name, and commit() syncs and renames it, in
// place of an older one. A writer that fails leaves nothing behind. What the system refuses is a
// SystemError that names the file.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path);
  ~NewFile();  // removes what was not committed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::string_view bytes);
  void commit();

 private:
  [[noreturn]] void give_up(int error) const;

  std::filesystem::path path_, partial_;
  int fd_;
  bool committed_ = false;
};

}  // namespace refract
