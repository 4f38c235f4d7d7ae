#include "cli/bench/bench_options.h"

namespace refract {

void declare(CommandLine& line, BenchSettings& settings) {
  line.positional("overrides", settings.overrides,
                  "key=value settings, for example train.device=cpu");
  line.option("--seconds", settings.seconds, "how many seconds to time each figure");
  line.flag("--json", settings.json, "print one JSON object");
}

}  // namespace refract
