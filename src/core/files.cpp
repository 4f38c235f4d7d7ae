#include "core/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/foreign_bytes.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// Closes on every way out.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

template <class... Args>
[[noreturn]] void fail_system(int code, fmt::format_string<Args...> format, Args&&... args) {
  throw SystemError(
      fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), std::strerror(code)),
      code);
}

void write_all(int fd, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system(errno, "can't write '{}'", path.string());
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

std::string read_file(const fs::path& path, std::string_view what) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) {
    fail_system(errno, "can't read {} '{}'", what, path.string());
  }
  if (S_ISDIR(info.st_mode)) fail("can't read {} '{}': it is a folder", what, path.string());
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  for (;;) {
    if (done == bytes.size()) bytes.resize(bytes.size() + 65536);  // pipes and growing files
    const ssize_t n = ::read(file.fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system(errno, "can't read {} '{}'", what, path.string());
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  const std::string kind = path.extension() == ".html" ? "" : stand_in(bytes);
  if (!kind.empty()) {
    fail("can't read {} '{}': it is {}", what, path.string(), kind);
  }
  return bytes;
}

int open_partial(const fs::path& path, fs::path& partial) {
  static std::atomic<uint64_t> count{0};
  for (int tries = 0; tries < 100; ++tries) {
    partial = path;
    partial += fmt::format(".{}-{}.partial", ::getpid(), count++);
    const int fd =
        ::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;  // EEXIST: left by a killed process of this number
  }
  return -1;
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  fs::path partial;
  Descriptor file{open_partial(path, partial)};
  if (file.fd < 0) fail_system(errno, "can't write '{}'", path.string());
  try {
    write_all(file.fd, bytes, path);
    if (::fsync(file.fd) != 0 || ::rename(partial.c_str(), path.c_str()) != 0)
      fail_system(errno, "can't write '{}'", path.string());
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
}

void sync_path(const fs::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0 || ::fsync(file.fd) != 0) {
    fail_system(errno, "can't flush '{}' to the disk", path.string());
  }
}

MappedFile::MappedFile(const fs::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) {
    fail_system(errno, "can't open '{}'", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (map == MAP_FAILED) fail_system(errno, "can't map '{}'", path.string());
  data_ = static_cast<const std::byte*>(map);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(size_t begin, size_t end) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  begin = (begin + page - 1) / page * page;
  end = std::min(end, size_) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace refract
