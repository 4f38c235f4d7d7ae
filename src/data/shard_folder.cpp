#include "data/shard_folder.h"

#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/files.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUnfinishedMark = "unfinished.bin.partial";

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> all;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    all.push_back(it->path());
  if (error) fail("can't read the folder '{}': {}", folder.string(), error.message());
  return all;
}

void remove_shards(const fs::path& folder) {
  std::error_code ignored;
  for (const fs::path& entry : entries_of(folder)) {
    const std::string name = entry.filename().string();
    if (is_unfinished_shard(entry) || (name.starts_with("tokens_") && name.ends_with(".bin")))
      fs::remove(entry, ignored);
  }
}

fs::path made_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("can't make the folder '{}': {}", folder.string(), error.message());
  return folder;
}

}  // namespace

bool is_unfinished_shard(const fs::path& file) {
  return file.filename().string().ends_with(".bin.partial");
}

ShardFolder::ShardFolder(const fs::path& folder)
    : path_(made_folder(folder)),
      lock_(path_, "is being written by another process; wait for it, or choose another --out") {
  const std::vector<fs::path> entries = entries_of(path_);
  bool unfinished = entries.empty();
  for (const fs::path& entry : entries) unfinished = unfinished || is_unfinished_shard(entry);
  if (!unfinished) {
    fail_usage(
        "'{}' already holds something; choose another --out for the shards, or remove it first",
        path_.string());
  }
  remove_shards(path_);
  std::ofstream mark(path_ / kUnfinishedMark);
  mark.close();
  if (!mark) fail("can't write '{}': {}", (path_ / kUnfinishedMark).string(), std::strerror(errno));
}

ShardFolder::~ShardFolder() {
  if (committed_) return;
  try {
    remove_shards(path_);
    std::error_code ignored;
    fs::remove(path_, ignored);  // an empty folder only
    // What is left has the mark still. NOLINTNEXTLINE(bugprone-empty-catch)
  } catch (const std::exception&) {
  }
}

void ShardFolder::commit() {
  sync_path(path_);
  std::error_code error;
  fs::remove(path_ / kUnfinishedMark, error);
  if (error) fail("can't write to '{}': {}", path_.string(), error.message());
  committed_ = true;
  sync_path(path_);
}

}  // namespace refract
