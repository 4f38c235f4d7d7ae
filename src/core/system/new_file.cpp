#include "core/system/new_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/files.h"

namespace refract {

namespace fs = std::filesystem;

NewFile::NewFile(const fs::path& path) : path_(path), fd_(open_partial(path, partial_)) {
  if (fd_ < 0) give_up(errno);
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_ && !partial_.empty()) ::unlink(partial_.c_str());
}

void NewFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) give_up(n < 0 ? errno : ENOSPC);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void NewFile::commit() {
  if (::fsync(fd_) != 0) give_up(errno);
  const int held = ::dup(fd_);  // keeps the lock until the file has its name
  const int closed = ::close(std::exchange(fd_, -1));
  const int error = closed != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0 ? errno : 0;
  if (held >= 0) ::close(held);
  if (error != 0) give_up(error);
  committed_ = true;
  sync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

void NewFile::give_up(int error) const {
  throw SystemError(
      fmt::format("can't write '{}': {}{}", path_.string(), std::strerror(error),
                  error == ENOSPC || error == EDQUOT ? "; free some space and save again" : ""),
      error);
}

}  // namespace refract
