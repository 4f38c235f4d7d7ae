// A folder that appears under its name only when it is whole.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

namespace refract {

// Files are written into path(), a hidden folder beside the target, and commit() renames it. A
// writer that fails or is killed leaves nothing under the target's name; what a killed one left
// beside it is removed by the next. Two writers at once: the second one fails.
class NewFolder {
 public:
  // Fails (usage) where something other than an empty folder has the target's name. `what` says in
  // errors what is written ("the model").
  NewFolder(const std::filesystem::path& target, std::string what);
  ~NewFolder();  // removes what was not committed
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void commit();

 private:
  [[noreturn]] void give_up(const std::string& reason) const;
  void take();

  std::filesystem::path target_, path_;
  std::string what_;
  int fd_ = -1;  // of path(), locked for as long as it is ours
  bool committed_ = false;
};

// Which file or folder a path names now, to tell later whether it still does.
class FileIdentity {
 public:
  FileIdentity() = default;                                  // of nothing
  explicit FileIdentity(const std::filesystem::path& path);  // of nothing where it does not exist
  bool known() const { return known_; }
  bool operator==(const FileIdentity& other) const = default;

 private:
  bool known_ = false;
  uint64_t device_ = 0, inode_ = 0;
};

}  // namespace refract
