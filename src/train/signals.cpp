#include "train/signals.h"

#include <signal.h>
#include <unistd.h>

#include <mutex>

namespace refract {
namespace {

volatile sig_atomic_t received_signal = 0;
struct sigaction old_int, old_term;
std::mutex mutex;
int living = 0;

void on_signal(int number) {
  if (received_signal != 0) _exit(128 + number);
  received_signal = number;
}

}  // namespace

StopSignals::StopSignals() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (living++ > 0) return;
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, &old_int);
  sigaction(SIGTERM, &action, &old_term);
}

StopSignals::~StopSignals() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (--living > 0) return;
  sigaction(SIGINT, &old_int, nullptr);
  sigaction(SIGTERM, &old_term, nullptr);
}

int StopSignals::received() { return received_signal; }

}  // namespace refract
