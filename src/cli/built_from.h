// What the program was built from, for --version. cmake/built_from.cmake writes the source.
#pragma once

namespace refract {

extern const char* const kBuiltFrom;  // "commit 8ac89f3a12, torch 2.11.0, CUDA 13.0"

}  // namespace refract
