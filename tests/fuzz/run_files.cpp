// Runs the targets over files without libFuzzer: run_files FOLDER reads FOLDER/<target>/*, those
// that once were findings. A file is a finding again where it takes longer than ten seconds.
#include <chrono>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "fuzz/fuzz_target.h"

namespace fs = std::filesystem;

namespace {

constexpr double kSlowest = 10;  // seconds

std::string bytes_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// Whether the file went through in time.
bool run(refract::fuzz::Target target, const fs::path& file) {
  const std::string bytes = bytes_of(file);
  std::fprintf(stderr, "%s\n", file.c_str());  // what a crash leaves as the last line
  const auto start = std::chrono::steady_clock::now();
  refract::fuzz::run_target(target, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (seconds.count() > kSlowest) std::fprintf(stderr, "took %.1f s\n", seconds.count());
  return seconds.count() <= kSlowest;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: run_files FOLDER\n");
    return 2;
  }
  int64_t files = 0, slow = 0;
  std::set<std::string> without;
  for (const auto& [name, target] : refract::fuzz::targets()) without.insert(name);
  for (const auto& folder : fs::directory_iterator(argv[1])) {
    const std::string name = folder.path().filename().string();
    const auto found = refract::fuzz::targets().find(name);
    if (found == refract::fuzz::targets().end()) {
      std::fprintf(stderr, "no target is called '%s'\n", name.c_str());
      return 1;
    }
    without.erase(name);
    for (const auto& file : fs::directory_iterator(folder.path())) {
      slow += run(found->second, file.path()) ? 0 : 1;
      ++files;
    }
  }
  for (const std::string& name : without) {
    std::fprintf(stderr, "the target '%s' has no files in %s\n", name.c_str(), argv[1]);
  }
  std::printf("%lld files, %lld too slow\n", static_cast<long long>(files),
              static_cast<long long>(slow));
  return slow == 0 && without.empty() && files > 0 ? 0 : 1;
}
