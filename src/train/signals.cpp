#include "train/signals.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <mutex>

namespace refract {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1, SIGXCPU};

volatile sig_atomic_t received_signal = 0;
volatile sig_atomic_t asked_by_hand = 0;
std::array<struct sigaction, kSignals.size()> before;
std::mutex mutex;
int living = 0;

// A closed terminal or pipe signals again and again, and a batch system's warning comes before its
// SIGTERM; only who asks twice by hand means it.
void on_signal(int number) {
  if (number == SIGINT || number == SIGTERM) {
    if (asked_by_hand != 0) _exit(128 + number);
    asked_by_hand = 1;
  }
  if (received_signal == 0) received_signal = number;
}

}  // namespace

StopSignals::StopSignals() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (living++ > 0) return;
  received_signal = 0;
  asked_by_hand = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before[i]);
    const bool nohup = kSignals[i] == SIGHUP && before[i].sa_handler == SIG_IGN;
    if (!nohup) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (--living > 0) return;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    // Where a run was asked to stop, a hangup that comes again must not end what it has still to
    // write: its handler stays.
    const bool by_hand = kSignals[i] == SIGINT || kSignals[i] == SIGTERM;
    const bool stays = received_signal != 0 && !by_hand && before[i].sa_handler == SIG_DFL;
    if (!stays) sigaction(kSignals[i], &before[i], nullptr);
  }
}

int StopSignals::received() { return received_signal; }

}  // namespace refract
