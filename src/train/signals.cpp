#include "train/signals.h"

#include <signal.h>
#include <unistd.h>

namespace refract {
namespace {

volatile sig_atomic_t received_signal = 0;
struct sigaction old_int, old_term;

void on_signal(int number) {
  if (received_signal != 0) _exit(128 + number);
  received_signal = number;
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, &old_int);
  sigaction(SIGTERM, &action, &old_term);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &old_int, nullptr);
  sigaction(SIGTERM, &old_term, nullptr);
}

int StopSignals::received() { return received_signal; }

}  // namespace refract
