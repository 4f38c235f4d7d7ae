#include "core/system/process_start.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <string_view>

namespace refract {
namespace {

// OpenMP's threads spin for milliseconds while they wait for each other. With anything else on
// their cores they so take the time from the thread that they wait for: a small model's step then
// takes hundreds of times as long as it should. This many rounds are some 50 microseconds, the gap
// between two parallel loops of a step; after them a thread sleeps. The runtime reads the variable
// when it is loaded, so the program starts itself once more; where that fails it goes on as it is.
void limit_spinning(char** argv) {
  constexpr const char* kRounds = "3000";
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  const char* threads = std::getenv("OMP_NUM_THREADS");
  if (threads != nullptr && std::string_view(threads) == "1") return;  // nobody to wait for
  if (::setenv("GOMP_SPINCOUNT", kRounds, 0) == 0) ::execv("/proc/self/exe", argv);
}

// Activations are freed and asked for again in every step. By default glibc gives large ones back
// to the system at once, and the next step pays for every page anew.
void keep_freed_memory() {
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

// Where a descriptor 0 to 2 is closed, the next file that is opened would get its number, and what
// is printed would go into that file. So they are opened, in the direction in which any use fails:
// a result that nobody can receive is an error still.
void open_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1) continue;
    if (::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) std::_Exit(1);
  }
}

// A reader that went away and a limit on the size of files (ulimit -f) then are errors of a write,
// which say what could not be written, and not the end of the process.
void let_writes_fail() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace

void start_process(char** argv) {
  open_standard_descriptors();
  let_writes_fail();
  limit_spinning(argv);
  keep_freed_memory();
}

}  // namespace refract
