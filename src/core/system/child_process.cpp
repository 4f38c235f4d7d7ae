#include "core/system/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

int open_or_fail(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
  if (fd < 0) fail("can't write '{}': {}", path.string(), std::strerror(errno));
  return fd;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

std::vector<std::string> visible_devices() {
  std::vector<std::string> devices;
  if (const char* set = std::getenv("CUDA_VISIBLE_DEVICES")) {
    std::string device;
    for (const char* c = set; *c; ++c) {
      if (*c == ',') {
        devices.push_back(std::move(device));
        device.clear();
      } else {
        device += *c;
      }
    }
    if (!device.empty()) devices.push_back(device);
    return devices;
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", ignored)) {
    if (entry.is_directory(ignored)) devices.push_back(std::to_string(devices.size()));
  }
  return devices;
}

std::vector<std::string> device_environment(int64_t slot) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry; ++entry) environment.emplace_back(*entry);
  const std::vector<std::string> devices = visible_devices();
  if (devices.size() < 2) return environment;
  std::erase_if(environment,
                [](const std::string& e) { return e.starts_with("CUDA_VISIBLE_DEVICES="); });
  environment.push_back("CUDA_VISIBLE_DEVICES=" +
                        devices[static_cast<size_t>(slot) % devices.size()]);
  return environment;
}

pid_t start_program(const ChildProcess& child) {
  std::vector<std::string> arguments = child.arguments, environment = child.environment;
  arguments.insert(arguments.begin(), "refract");
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const int in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int out = open_or_fail(child.output, O_TRUNC), err = open_or_fail(child.errors, O_APPEND);
  const pid_t parent = ::getpid(), pid = ::fork();
  if (pid == 0) {  // only async-signal-safe calls from here on: the parent has threads
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);  // it died before it could be watched
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGTERM, SIG_DFL);
    ::dup2(in, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    ::execve("/proc/self/exe", argv.data(), envp.data());
    ::_exit(127);
  }
  const int error = errno;
  for (const int fd : {in, out, err}) ::close(fd);
  if (pid < 0) fail("can't start another process: {}", std::strerror(error));
  return pid;
}

}  // namespace refract
