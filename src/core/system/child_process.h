// This program, started again as a child.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace refract {

struct ChildProcess {
  std::vector<std::string> arguments;    // behind the program's name
  std::vector<std::string> environment;  // "NAME=value", in place of this process's own
  std::filesystem::path output, errors;  // files: output is written anew, errors are appended
};

// Starts it in a process group of its own, so that the terminal's Ctrl-C does not reach it; it gets
// SIGTERM when this process dies. Returns its id; Error where it can't be started.
pid_t start_program(const ChildProcess& child);

// The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them, without asking CUDA.
std::vector<std::string> visible_devices();

// This process's environment; where there are several GPUs, CUDA_VISIBLE_DEVICES is the one for
// `slot`, in turn.
std::vector<std::string> device_environment(int64_t slot);

}  // namespace refract
