// One client's socket, with limits: how long a request may take to come, how many bytes it may
// have, and how long an answer may wait for a client that does not read.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace refract {

class Connection {
 public:
  using Milliseconds = std::chrono::milliseconds;

  // Owns the socket `fd`. `timeout` is for all of a request to come, and for any progress of an
  // answer.
  Connection(int fd, Milliseconds timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Waits for the first byte of a request; false where none came in the timeout, the client left,
  // or `stop` says so.
  bool wait_for_request(const std::function<bool()>& stop);
  // From here on a request of at most `bytes` is read.
  void begin_request(size_t bytes);
  // Bytes that came, 0 at their end, -1 beyond a limit or in an error.
  int64_t read(char* data, size_t size);
  // All of them or -1.
  int64_t write(const char* data, size_t size);

  // Whether the client closed its side, or all of it.
  bool gone() const;
  // Whether the request did not come in time.
  bool timed_out() const { return timed_out_; }
  // Nothing more is read from it: what is left of the request is not wanted.
  void close_after_answer() { closing_ = true; }
  bool closing() const { return closing_; }
  // Sends what is sent, and takes in for a moment what the client still writes: a socket that is
  // closed over unread bytes takes the answer along.
  void finish();
  // Ends what any thread waits for on it.
  void cut();

  int fd() const { return fd_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool wait(short events, Clock::time_point until) const;
  bool fill();

  int fd_;
  Milliseconds timeout_;
  Clock::time_point deadline_;
  size_t allowed_ = 0;  // bytes that may still be read from the socket
  std::array<char, 4096> buffer_ = {};
  size_t begin_ = 0, end_ = 0;  // of what is in the buffer
  bool timed_out_ = false, closing_ = false;
};

// A socket that listens at `host` (a name or an address) and `port` (0: any that is free), which is
// set to the one it got. Error where that can't be had.
int listen_at(const std::string& host, int& port);
// Whether only this machine reaches the address.
bool is_loopback(const std::string& host);

}  // namespace refract
