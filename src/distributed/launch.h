// Several processes of this program on this machine, for those who have no torchrun.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace refract {

// Starts `count` processes of this program with these arguments and the environment that
// find_ranks() reads, and waits for them. SIGINT and SIGTERM are passed on, a second one kills. One
// that fails takes the others with it. Returns 0, or the exit code of the first that failed.
int launch_processes(int64_t count, const std::vector<std::string>& arguments);

// A port of this machine that nobody listens at.
int64_t free_port();

}  // namespace refract
