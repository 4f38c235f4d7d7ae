// What this process is: its command line, and the time, for records that people read later.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// The command line as it can be pasted into a shell; empty where the system doesn't say.
std::string process_command();

// A word as a shell takes it: quoted where it has to be.
std::string shell_quoted(std::string_view word);

// "2026-11-30 07:20 UTC".
std::string utc_minute(double seconds_since_1970);
double seconds_since_1970();

}  // namespace refract
