// libFuzzer's function, for a program with one target.
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const refract::fuzz::Target target = refract::fuzz::targets().begin()->second;
  refract::fuzz::run_target(target, data, size);
  return 0;
}
