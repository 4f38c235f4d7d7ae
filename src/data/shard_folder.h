// The folder that `refract tokenize` fills.
#pragma once
#include <filesystem>

#include "core/system/folder_lock.h"

namespace refract {

// Until commit() a file whose name ends in .bin.partial lies in the folder, so that nobody takes
// what is there for a corpus: expand_paths() refuses such a folder.
class ShardFolder {
 public:
  // Makes the folder, or takes over one that a stopped writer left, whose shards are removed. Fails
  // (usage) where it holds anything else; fails where another process writes it.
  explicit ShardFolder(const std::filesystem::path& folder);
  // Removes the shards, and the folder where nothing else is in it, if they were not committed.
  ~ShardFolder();
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void commit();

 private:
  std::filesystem::path path_;
  FolderLock lock_;
  bool committed_ = false;
};

// Whether a file's name says that it is a part of unfinished shards.
bool is_unfinished_shard(const std::filesystem::path& file);

}  // namespace refract
