#include "core/system/new_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/files.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// "runs/model/" -> "runs/model"; the name to rename to is the last part.
fs::path without_slash(const fs::path& path) {
  fs::path clean = fs::absolute(path).lexically_normal();
  return clean.has_filename() ? clean : clean.parent_path();
}

bool is_free(const fs::path& target) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (status.type() == fs::file_type::not_found) return true;
  return status.type() == fs::file_type::directory && fs::is_empty(target, error) && !error;
}

}  // namespace

NewFolder::NewFolder(const fs::path& target, std::string what)
    : target_(without_slash(target)), what_(std::move(what)) {
  if (!is_free(target_)) {
    fail_usage("'{}' already holds something; choose another --out for {}, or remove it first",
               target_.string(), what_);
  }
  path_ = target_.parent_path() / ("." + target_.filename().string() + ".refract-unfinished");
  std::error_code error;
  fs::create_directories(target_.parent_path(), error);
  if (error) give_up(error.message());
  try {
    take();
  } catch (...) {
    if (fd_ >= 0) ::close(fd_);
    throw;
  }
}

// Makes the folder or takes over one that a killed writer left.
void NewFolder::take() {
  if (::mkdir(path_.c_str(), 0777) != 0 && errno != EEXIST) give_up(std::strerror(errno));
  fd_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd_ < 0) give_up(std::strerror(errno));
  // A file system that knows no locks has no other writer that could tell us.
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    give_up("another process is writing it");
  struct stat opened {
  }, named{};
  const bool same = ::fstat(fd_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                    opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
  if (!same) give_up("another process has just written it");
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
    std::error_code error;
    fs::remove_all(entry.path(), error);
    if (error) give_up(error.message());
  }
}

NewFolder::~NewFolder() {
  if (!committed_) {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  if (fd_ >= 0) ::close(fd_);
}

void NewFolder::commit() {
  if (::fsync(fd_) != 0) give_up(std::strerror(errno));
  // Over an empty folder too; one that has got files meanwhile stays, and this fails.
  if (::rename(path_.c_str(), target_.c_str()) != 0) give_up(std::strerror(errno));
  committed_ = true;
  sync_path(target_.parent_path());
}

void NewFolder::give_up(const std::string& reason) const {
  fail("can't write {} to '{}': {}", what_, target_.string(), reason);
}

FileIdentity::FileIdentity(const fs::path& path) {
  struct stat info {};
  known_ = ::stat(path.c_str(), &info) == 0;
  if (!known_) return;
  device_ = static_cast<uint64_t>(info.st_dev);
  inode_ = static_cast<uint64_t>(info.st_ino);
}

}  // namespace refract
