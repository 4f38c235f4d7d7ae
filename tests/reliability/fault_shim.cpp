#include "fault_shim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace refract::testing {
namespace {

constexpr std::array<const char*, static_cast<size_t>(Call::kCount)> kNames = {
    "open", "read", "write", "fsync", "rename", "mkdir", "unlink", "mmap", "ftruncate"};
struct ErrorName {
  const char* name;
  int code;
};
constexpr ErrorName kErrors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EINTR", EINTR},
                                 {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}, {"ENOSYS", ENOSYS},
                                 {"EACCES", EACCES}};
constexpr int kShort = -1, kKill = -2;
constexpr int kMaxFd = 4096;

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

// Nothing here allocates or locks: it runs inside of any call of the program.
struct Plan {
  bool any = false, and_later = false, active = false;
  int call = -1, what = 0;
  long at = 0;
  char under[PATH_MAX] = {};
  size_t under_size = 0;

  Plan() {
    if (const char* folder = std::getenv("REFRACT_FAULT_UNDER")) {
      std::snprintf(under, sizeof(under), "%s", folder);
      under_size = std::strlen(under);
    }
    const char* text = std::getenv("REFRACT_FAULT");
    if (!text || under_size == 0) return;
    const char* colon = std::strchr(text, ':');
    char name[16] = {};
    if (!colon || colon - text >= static_cast<ptrdiff_t>(sizeof(name))) std::abort();
    std::memcpy(name, text, static_cast<size_t>(colon - text));
    char* effect = nullptr;
    at = std::strtol(colon + 1, &effect, 10);
    if (effect == colon + 1 || (*effect != ':' && *effect != '+')) std::abort();
    and_later = *effect == '+';
    const char* what_name = effect + (and_later ? 2 : 1);
    any = std::strcmp(name, "any") == 0;
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (std::strcmp(name, kNames[i]) == 0) call = static_cast<int>(i);
    }
    for (const ErrorName& error : kErrors) {
      if (std::strcmp(what_name, error.name) == 0) what = error.code;
    }
    if (std::strcmp(what_name, "SHORT") == 0) what = kShort;
    if (std::strcmp(what_name, "KILL") == 0) what = kKill;
    if ((call < 0 && !any) || what == 0 || at < 1) std::abort();  // a test that tests nothing
    active = true;
  }
};

const Plan& plan() {
  static const Plan one;
  return one;
}

std::array<std::atomic<long>, static_cast<size_t>(Call::kCount)> counts;
std::atomic<long> all_calls;
std::array<std::atomic<bool>, kMaxFd> tracked;

void write_counts() {
  const char* path = std::getenv("REFRACT_FAULT_LOG");
  if (!path) return;
  char text[512];
  int size = std::snprintf(text, sizeof(text), "any %ld\n", all_calls.load());
  for (size_t i = 0; i < kNames.size(); ++i) {
    size += std::snprintf(text + size, sizeof(text) - static_cast<size_t>(size), "%s %ld\n",
                          kNames[i], counts[i].load());
  }
  const int fd =
      real<int (*)(const char*, int, ...)>("open")(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) return;
  if (real<ssize_t (*)(int, const void*, size_t)>("write")(fd, text, static_cast<size_t>(size)) !=
      size)
    std::abort();
  real<int (*)(int)>("close")(fd);
}

struct AtExit {
  ~AtExit() { write_counts(); }
} at_exit;

bool below(const char* path) {
  const Plan& p = plan();
  if (p.under_size == 0 || !path) return false;
  if (path[0] == '/') return std::strncmp(path, p.under, p.under_size) == 0;
  char folder[PATH_MAX];
  return ::getcwd(folder, sizeof(folder)) != nullptr &&
         std::strncmp(folder, p.under, p.under_size) == 0;
}

bool below_at(int folder, const char* path) {
  if (path && path[0] == '/') return below(path);
  return folder == AT_FDCWD
             ? below(path)
             : folder >= 0 && folder < kMaxFd && tracked[static_cast<size_t>(folder)];
}

bool is_tracked(int fd) { return fd >= 0 && fd < kMaxFd && tracked[static_cast<size_t>(fd)]; }

void track(int fd, bool on) {
  if (fd >= 0 && fd < kMaxFd) tracked[static_cast<size_t>(fd)] = on;
}

}  // namespace

int fault(Call call) {
  const Plan& p = plan();
  const long own = ++counts[static_cast<size_t>(call)], all = ++all_calls;
  if (!p.active || (!p.any && p.call != static_cast<int>(call))) return 0;
  const long number = p.any ? all : own;
  if (number < p.at || (number > p.at && !p.and_later)) return 0;
  if (p.what == kKill) {
    ::kill(::getpid(), SIGKILL);
    ::pause();
  }
  return p.what;
}

}  // namespace refract::testing

using refract::testing::below;
using refract::testing::below_at;
using refract::testing::Call;
using refract::testing::fault;
using refract::testing::is_tracked;
using refract::testing::real;
using refract::testing::track;

namespace {

// Fails the call where that is due.
bool fails(Call call) {
  const int code = fault(call);
  if (code > 0) errno = code;
  return code > 0;
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(arguments, unsigned)) : 0;
}

int open_at(const char* name, int folder, const char* path, int flags, mode_t mode) {
  const bool ours = below_at(folder, path);
  if (ours && fails(Call::kOpen)) return -1;
  const int fd = real<int (*)(int, const char*, int, ...)>(name)(folder, path, flags, mode);
  track(fd, ours);
  return fd;
}

FILE* open_stream(const char* name, const char* path, const char* mode) {
  const bool ours = below(path);
  if (ours && fails(Call::kOpen)) return nullptr;
  FILE* stream = real<FILE* (*)(const char*, const char*)>(name)(path, mode);
  if (stream) track(::fileno(stream), ours);
  return stream;
}

}  // namespace

extern "C" {

FILE* fopen(const char* path, const char* mode) { return open_stream("fopen", path, mode); }
FILE* fopen64(const char* path, const char* mode) { return open_stream("fopen64", path, mode); }

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at("openat", AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at("openat64", AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at("openat", folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_at("openat64", folder, path, flags, mode);
}
int close(int fd) {
  track(fd, false);
  return real<int (*)(int)>("close")(fd);
}
ssize_t read(int fd, void* buffer, size_t size) {
  if (is_tracked(fd)) {
    const int code = fault(Call::kRead);
    if (code > 0) return errno = code, -1;
    if (code < 0 && size > 1) size = 1;
  }
  return real<ssize_t (*)(int, void*, size_t)>("read")(fd, buffer, size);
}
ssize_t pread(int fd, void* buffer, size_t size, off_t at) {
  if (is_tracked(fd)) {
    const int code = fault(Call::kRead);
    if (code > 0) return errno = code, -1;
    if (code < 0 && size > 1) size = 1;
  }
  return real<ssize_t (*)(int, void*, size_t, off_t)>("pread")(fd, buffer, size, at);
}
ssize_t write(int fd, const void* buffer, size_t size) {
  if (is_tracked(fd)) {
    const int code = fault(Call::kWrite);
    if (code > 0) return errno = code, -1;
    if (code < 0 && size > 1) size = 1;
  }
  return real<ssize_t (*)(int, const void*, size_t)>("write")(fd, buffer, size);
}
ssize_t pwrite(int fd, const void* buffer, size_t size, off_t at) {
  if (is_tracked(fd)) {
    const int code = fault(Call::kWrite);
    if (code > 0) return errno = code, -1;
    if (code < 0 && size > 1) size = 1;
  }
  return real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite")(fd, buffer, size, at);
}
ssize_t writev(int fd, const iovec* parts, int count) {
  if (is_tracked(fd)) {
    const int code = fault(Call::kWrite);
    if (code > 0) return errno = code, -1;
    for (int i = 0; code < 0 && i < count; ++i) {
      if (parts[i].iov_len > 0)
        return real<ssize_t (*)(int, const void*, size_t)>("write")(fd, parts[i].iov_base, 1);
    }
  }
  return real<ssize_t (*)(int, const iovec*, int)>("writev")(fd, parts, count);
}
int fsync(int fd) {
  if (is_tracked(fd) && fails(Call::kFsync)) return -1;
  return real<int (*)(int)>("fsync")(fd);
}
int fdatasync(int fd) {
  if (is_tracked(fd) && fails(Call::kFsync)) return -1;
  return real<int (*)(int)>("fdatasync")(fd);
}
int ftruncate(int fd, off_t size) noexcept {
  if (is_tracked(fd) && fails(Call::kFtruncate)) return -1;
  return real<int (*)(int, off_t)>("ftruncate")(fd, size);
}
int rename(const char* from, const char* to) noexcept {
  if (below(to) && fails(Call::kRename)) return -1;
  return real<int (*)(const char*, const char*)>("rename")(from, to);
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (below(path) && fails(Call::kMkdir)) return -1;
  return real<int (*)(const char*, mode_t)>("mkdir")(path, mode);
}
int unlink(const char* path) noexcept {
  if (below(path) && fails(Call::kUnlink)) return -1;
  return real<int (*)(const char*)>("unlink")(path);
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  if (below_at(folder, path) && fails(Call::kUnlink)) return -1;
  return real<int (*)(int, const char*, int)>("unlinkat")(folder, path, flags);
}
int remove(const char* path) noexcept {
  if (below(path) && fails(Call::kUnlink)) return -1;
  return real<int (*)(const char*)>("remove")(path);
}
void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  if (is_tracked(fd) && fails(Call::kMmap)) return MAP_FAILED;
  return real<void* (*)(void*, size_t, int, int, int, off_t)>("mmap")(at, size, protection, flags,
                                                                      fd, offset);
}

}  // extern "C"
