// libFuzzer's functions. The program's name says which target it is: fuzz_toml is "toml".
#include <string>

#include "fuzz/fuzz_target.h"

namespace {

refract::fuzz::Target chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** argv) {
  const std::string program = std::filesystem::path((*argv)[0]).filename();
  const auto& targets = refract::fuzz::targets();
  const auto found = targets.find(program.starts_with("fuzz_") ? program.substr(5) : program);
  if (found == targets.end()) {
    std::fprintf(stderr, "there is no target '%s'\n", program.c_str());
    std::exit(2);
  }
  chosen = found->second;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refract::fuzz::run_target(chosen, data, size);
  return 0;
}
