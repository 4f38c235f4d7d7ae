// One process at a time in a folder.
#pragma once
#include <filesystem>
#include <string>

namespace refract {

// Holds a folder for as long as it lives; nothing is written for it. A file system without locks
// lets everybody in.
class FolderLock {
 public:
  // Fails where another process holds it: "'x' `complaint`". A folder that does not exist is not
  // held.
  FolderLock(const std::filesystem::path& folder, const std::string& complaint);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  bool found() const { return fd_ >= 0; }  // the folder existed

 private:
  int fd_ = -1;
};

}  // namespace refract
