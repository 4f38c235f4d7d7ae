// A file that only grows, in whole records: what the run folder's logs are written through.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/system/new_folder.h"

namespace refract {

class AppendFile {
 public:
  // Opens the file at its end, or makes it. `what` names it in errors ("the metrics").
  AppendFile(std::filesystem::path path, std::string what);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Hands the record to the system at once, so a killed process loses nothing. When that fails (a
  // full disk), what was written of it is cut off again and an Error is thrown: the file still
  // holds whole records only, and a later call may succeed. Fails as well where the path no longer
  // names this file, because somebody removed or replaced it: the record would be lost.
  void append(std::string_view record);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::string what_;
  int fd_ = -1;
  int64_t size_ = 0;
  FileIdentity identity_;
};

}  // namespace refract
