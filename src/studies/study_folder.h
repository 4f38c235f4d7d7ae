// The folder that a study writes its results into.
#pragma once
#include <filesystem>
#include <string>

#include "core/system/folder_lock.h"

namespace refract {

class StudyFolder {
 public:
  // Makes the folder and holds it for this process. Fails (usage) where it can't be made and for a
  // run's, whose report.html would be lost; fails where another process writes into it.
  explicit StudyFolder(const std::string& out);

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FolderLock lock_;
};

}  // namespace refract
