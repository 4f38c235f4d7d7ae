// SIGINT and SIGTERM ask a run to save and stop; a second one stops it at once.
#pragma once

namespace refract {

// Installs the handlers for as long as the object lives. Of several that live at once, in any
// thread, the first does it for all; runs that are trained side by side then stop together.
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
