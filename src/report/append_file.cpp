#include "report/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace refract {

AppendFile::AppendFile(std::filesystem::path path, std::string what)
    : path_(std::move(path)), what_(std::move(what)), identity_() {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  struct stat info {};
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
    const int error = errno;
    if (fd_ >= 0) ::close(fd_);
    fail("can't open {} '{}' for writing: {}", what_, path_.string(), std::strerror(error));
  }
  size_ = info.st_size;
  identity_ = FileIdentity(path_);
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)),
      what_(std::move(other.what_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_),
      identity_(other.identity_) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(what_, other.what_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(identity_, other.identity_);
  return *this;
}

void AppendFile::append(std::string_view record) {
  if (FileIdentity(path_) != identity_) {
    fail("{} '{}' was removed or replaced while it was written; what comes now would be lost",
         what_, path_.string());
  }
  std::string_view rest = record;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      const bool cut = ::ftruncate(fd_, size_) == 0;
      fail("can't write {} '{}': {}{}", what_, path_.string(), std::strerror(error),
           cut ? "" : " (and its last record may be torn)");
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  size_ += static_cast<int64_t>(record.size());
}

}  // namespace refract
