// Which program this is: processes of one run must compute the same.
#pragma once
#include <string>

namespace refract {

// A number that differs between two builds that are not byte for byte the same.
std::string program_fingerprint();

}  // namespace refract
