#include <malloc.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <string_view>

#include "cli/commands.h"
#include "studies/connectivity/connectivity_config.h"

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

}  // namespace

int main(int argc, char** argv) {
  limit_spinning(argv);
  keep_freed_memory();
  refract::register_connectivity_table();
  return refract::run_program(argc, argv, refract::all_commands());
}
