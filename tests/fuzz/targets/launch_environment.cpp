#include <algorithm>
#include <functional>
#include <optional>

#include "distributed/ranks.h"
#include "fuzz/fuzz_target.h"

// What torchrun, srun or mpirun leave in the environment, a variable on a line. A place that is
// taken is one among its processes.
FUZZ_TARGET(launch_environment) {
  std::map<std::string, std::string, std::less<>> variables;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const size_t equals = line.find('=');
    if (equals != std::string_view::npos)
      variables.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  const refract::Ranks ranks =
      refract::find_ranks([&](const char* name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional(found->second);
      });
  if (ranks.rank < 0 || ranks.rank >= ranks.size) std::abort();
  if (ranks.local_rank < 0 || ranks.local_rank >= ranks.size) std::abort();
  if (ranks.size > 1 && (ranks.port < 1 || ranks.port > 65535)) std::abort();
}
