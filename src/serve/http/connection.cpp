#include "serve/http/connection.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace refract {
namespace {

constexpr std::chrono::milliseconds kTick{100};       // between looks whether to stop
constexpr std::chrono::milliseconds kFarewell{1000};  // for what a client still writes
constexpr int kBacklog = 512;

int milliseconds_until(std::chrono::steady_clock::time_point until) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      until - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count() + 1, 0, 1 << 30));
}

}  // namespace

Connection::Connection(int fd, Milliseconds timeout) : fd_(fd), timeout_(timeout) {
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // a token is sent as it comes
}

Connection::~Connection() { ::close(fd_); }

bool Connection::wait(short events, Clock::time_point until) const {
  for (;;) {
    pollfd entry{fd_, events, 0};
    const int ready = ::poll(&entry, 1, milliseconds_until(until));
    if (ready > 0) return true;  // an error shows in the call that follows
    if (ready == 0 && Clock::now() >= until) return false;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool Connection::wait_for_request(const std::function<bool()>& stop) {
  const Clock::time_point until = Clock::now() + timeout_;
  while (begin_ == end_) {
    if (stop() || Clock::now() >= until) return false;
    if (!wait(POLLIN, std::min(until, Clock::now() + kTick))) continue;
    const ssize_t came = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (came < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (came <= 0) return false;
    begin_ = 0;
    end_ = static_cast<size_t>(came);
  }
  return true;
}

void Connection::begin_request(size_t bytes) {
  deadline_ = Clock::now() + timeout_;
  allowed_ = bytes;
  timed_out_ = false;
}

bool Connection::fill() {
  if (allowed_ == 0) return false;
  for (;;) {
    if (!wait(POLLIN, deadline_)) {
      timed_out_ = true;
      return false;
    }
    const ssize_t came =
        ::recv(fd_, buffer_.data(), std::min(buffer_.size(), allowed_), MSG_DONTWAIT);
    if (came < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (came <= 0) return false;
    begin_ = 0;
    end_ = static_cast<size_t>(came);
    allowed_ -= end_;
    return true;
  }
}

int64_t Connection::read(char* data, size_t size) {
  if (begin_ == end_ && !fill()) return -1;
  const size_t count = std::min(size, end_ - begin_);
  std::memcpy(data, buffer_.data() + begin_, count);
  begin_ += count;
  return static_cast<int64_t>(count);
}

int64_t Connection::write(const char* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t sent = ::send(fd_, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return -1;
    if (!wait(POLLOUT, Clock::now() + timeout_)) return -1;
  }
  return static_cast<int64_t>(size);
}

bool Connection::gone() const {
  pollfd entry{fd_, POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void Connection::finish() {
  if (::shutdown(fd_, SHUT_WR) != 0) return;
  const Clock::time_point until = Clock::now() + kFarewell;
  while (wait(POLLIN, until)) {
    const ssize_t came = ::recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (came == 0 || (came < 0 && errno != EAGAIN && errno != EINTR)) return;
    if (Clock::now() >= until) return;
  }
}

void Connection::cut() { ::shutdown(fd_, SHUT_RDWR); }

int listen_at(const std::string& host, int& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int trouble = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (trouble != 0) fail_usage("--host {} is no address: {}", host, ::gai_strerror(trouble));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, ::freeaddrinfo);
  int error = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    sockaddr_storage name{};
    socklen_t size = sizeof(name);
    if (fd >= 0 && ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        ::bind(fd, at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd, kBacklog) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0) {
      port = ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                                              : reinterpret_cast<sockaddr_in*>(&name)->sin_port);
      return fd;
    }
    error = errno;
    if (fd >= 0) ::close(fd);
  }
  if (error == EADDRINUSE)
    fail("port {} of {} is taken by another program; give another --port (0: any)", port, host);
  fail("can't listen at {}, port {}: {}", host, port, std::strerror(error));
}

bool is_loopback(const std::string& host) {
  in_addr four{};
  in6_addr six{};
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  if (::inet_pton(AF_INET6, host.c_str(), &six) == 1)
    return std::memcmp(&six, &in6addr_loopback, sizeof(six)) == 0;
  return host == "localhost";
}

}  // namespace refract
