// How the program ends: its one line of error, and its exit code.
#pragma once
#include <functional>
#include <string>

#include "core/error.h"

namespace refract {

// Prints the line "refract: <message>" to standard error, whatever a file or a name in the message
// holds, and returns the code.
int report_failure(const std::string& message, ExitCode code);

// What `action` returns, or for whatever it throws one line of ours and its exit code. Libraries'
// texts reach nobody.
int guarded(const std::function<int()>& action);

// The exit code, unless what was printed did not arrive: a result that is lost is a failure. Ends
// the process as other programs do where its reader went away.
int finish_output(int code);

}  // namespace refract
