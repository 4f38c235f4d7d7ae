// Signals that ask a run to save and stop: SIGINT, SIGTERM, a terminal that is closed (SIGHUP), a
// reader of the output that went away (SIGPIPE), a batch system's warnings (SIGUSR1, SIGXCPU).
#pragma once

namespace refract {

// Installs the handlers for as long as the object lives. A second SIGINT or SIGTERM stops the
// process at once; the others only ask, and go on to when the object is gone. A hangup that is
// ignored already (nohup) stays so. Of several objects that live at once, in any thread, the first
// does it for all; runs that are trained side by side then stop together.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that was received, or 0.
  static int received();
};

}  // namespace refract
