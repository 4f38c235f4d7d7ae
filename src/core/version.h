// The program's version: CMakeLists.txt has it, and nothing else.
#pragma once

namespace refract {

extern const char* const kVersion;  // "0.1.0"

}  // namespace refract
