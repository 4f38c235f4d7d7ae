#include "distributed/launch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/log.h"

namespace refract {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kGrace = std::chrono::seconds(6);  // for the others to end by themselves

// One that owns a terminal's Ctrl-C would get it from there and from us.
constexpr int kSignals[] = {SIGINT, SIGTERM};

class Processes {
 public:
  Processes(int64_t count, const std::vector<std::string>& arguments) {
    sigemptyset(&awaited_);
    for (const int signal : kSignals) sigaddset(&awaited_, signal);
    sigaddset(&awaited_, SIGCHLD);
    sigprocmask(SIG_BLOCK, &awaited_, &before_);
    const int64_t port = free_port();
    for (int64_t rank = 0; rank < count; ++rank) start(rank, count, port, arguments);
  }
  ~Processes() {
    kill_all(SIGKILL);
    for (const pid_t pid : running_) ::waitpid(pid, nullptr, 0);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  int wait() {
    while (alive() > 0) {
      const timespec patience{0, 200'000'000};
      const int signal = sigtimedwait(&awaited_, nullptr, &patience);
      if (signal == SIGINT || signal == SIGTERM) {
        kill_all(told_ ? SIGKILL : SIGTERM);
        told_ = true;
      }
      reap();
      if (kill_at_ && Clock::now() > *kill_at_) kill_all(SIGKILL);
    }
    return code_;
  }

 private:
  void start(int64_t rank, int64_t count, int64_t port, const std::vector<std::string>& arguments) {
    std::vector<std::string> words = arguments, environment;
    words.insert(words.begin(), "refract");
    for (char** entry = environ; *entry; ++entry) environment.emplace_back(*entry);
    const auto set = [&](const std::string& name, const std::string& value) {
      std::erase_if(environment, [&](const std::string& e) { return e.starts_with(name + "="); });
      environment.push_back(name + "=" + value);
    };
    for (const char* name : {"RANK", "LOCAL_RANK"}) set(name, std::to_string(rank));
    for (const char* name : {"WORLD_SIZE", "LOCAL_WORLD_SIZE"}) set(name, std::to_string(count));
    set("MASTER_ADDR", "127.0.0.1");
    set("MASTER_PORT", std::to_string(port));
    set("TORCHELASTIC_USE_AGENT_STORE", "False");
    if (!::getenv("OMP_NUM_THREADS")) {
      const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
      set("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(1, cores / count)));
    }
    spawn(words, environment);
  }

  void spawn(std::vector<std::string>& words, std::vector<std::string>& environment) {
    std::vector<char*> argv, envp;
    for (std::string& word : words) argv.push_back(word.data());
    for (std::string& entry : environment) envp.push_back(entry.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
    const pid_t parent = ::getpid(), pid = ::fork();
    if (pid == 0) {  // only async-signal-safe calls from here on
      ::setpgid(0, 0);
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (::getppid() != parent) ::_exit(1);
      sigprocmask(SIG_SETMASK, &before_, nullptr);
      const int in = ::open("/dev/null", O_RDONLY);
      ::dup2(in, STDIN_FILENO);
      ::execve("/proc/self/exe", argv.data(), envp.data());
      ::_exit(127);
    }
    if (pid < 0) fail("can't start another process: {}", std::strerror(errno));
    running_.push_back(pid);
  }

  int64_t alive() const {
    return std::count_if(running_.begin(), running_.end(), [](pid_t pid) { return pid > 0; });
  }

  void kill_all(int signal) const {
    for (const pid_t pid : running_) {
      if (pid > 0) ::kill(pid, signal);
    }
  }

  void reap() {
    for (size_t rank = 0; rank < running_.size(); ++rank) {
      int status = 0;
      if (running_[rank] <= 0 || ::waitpid(running_[rank], &status, WNOHANG) <= 0) continue;
      const pid_t pid = running_[rank];
      running_[rank] = 0;
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      if (code == 0) continue;
      if (code_ == 0) code_ = code;
      if (told_ || kill_at_) continue;  // no cause, but a consequence
      if (WIFSIGNALED(status)) {
        log_warning("process {} (pid {}) was killed by signal {} ({}); ending the others", rank,
                    pid, WTERMSIG(status), ::strsignal(WTERMSIG(status)));
      }
      kill_at_ = Clock::now() + kGrace;
      kill_all(SIGTERM);
    }
  }

  sigset_t awaited_{}, before_{};
  std::vector<pid_t> running_;  // by rank; 0: ended
  bool told_ = false;           // to end, by a signal
  std::optional<Clock::time_point> kill_at_;
  int code_ = 0;
};

}  // namespace

int64_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* place = reinterpret_cast<sockaddr*>(&address);
  const bool bound =
      fd >= 0 && ::bind(fd, place, length) == 0 && ::getsockname(fd, place, &length) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!bound) fail("this machine has no free port: {}", std::strerror(error));
  return ::ntohs(address.sin_port);
}

int launch_processes(int64_t count, const std::vector<std::string>& arguments) {
  Processes processes(count, arguments);
  return processes.wait();
}

}  // namespace refract
