#include "fuzz/fuzz_target.h"
#include "report/sweep/sweep_record.h"

// What is accepted is written again as it was read.
FUZZ_TARGET(sweep_file) {
  static const refract::fuzz::Folder folder;
  folder.write("sweep.json", text);
  const auto sweep = refract::read_sweep(folder.path());
  refract::write_sweep(folder.path(), *sweep);
  const auto again = refract::read_sweep(folder.path());
  if (again->runs.size() != sweep->runs.size() || again->keys != sweep->keys) std::abort();
}
