#include "report/metrics.h"

#include "fuzz/fuzz_target.h"

// A resumed run cuts the file of the run before it back to its step.
FUZZ_TARGET(metrics) {
  static const refract::fuzz::Folder folder;
  folder.write("metrics.jsonl", text);
  const std::pair<std::string_view, double> loss{"loss", 1.5};
  refract::MetricsLog(folder.path(), 10).write(11, {&loss, 1});
}
