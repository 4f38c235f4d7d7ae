#include "core/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
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

bool is_partial_of(std::string_view name, std::string_view file) {
  if (!name.starts_with(file) || !name.ends_with(".partial")) return false;
  name = name.substr(file.size(), name.size() - file.size() - std::strlen(".partial"));
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_number = [&](std::string_view s) {
    return !s.empty() && std::ranges::all_of(s, digit);
  };
  const size_t dash = name.find('-');
  return name.starts_with('.') && dash != std::string_view::npos &&
         is_number(name.substr(1, dash - 1)) && is_number(name.substr(dash + 1));
}

// What killed writers of `path` left beside it. A living writer holds a lock on its own file.
void remove_left_partials(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string file = path.filename().string();
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!is_partial_of(entry->path().filename().string(), file)) continue;
    const Descriptor left{
        ::open(entry->path().c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)};
    if (left.fd >= 0 && ::flock(left.fd, LOCK_EX | LOCK_NB) == 0) ::unlink(entry->path().c_str());
  }
}

// Locks a file just made, for as long as it is open. False where another process took it for a
// file that was left and removed it. A file system without locks has nothing removed either.
bool keep(int fd) {
  struct stat info {};
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  return ::fstat(fd, &info) != 0 || info.st_nlink > 0;
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
  remove_left_partials(path);
  for (int tries = 0; tries < 100; ++tries) {
    partial = path;
    partial += fmt::format(".{}-{}.partial", ::getpid(), count++);
    const int fd =
        ::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0 && keep(fd)) return fd;
    if (fd < 0 && errno != EEXIST) return -1;
    if (fd >= 0) ::close(fd);
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
