#include <fmt/format.h>

#include "cli/built_from.h"
#include "cli/commands.h"
#include "core/system/process_start.h"
#include "core/version.h"
#include "studies/connectivity/connectivity_config.h"
#include "transforms/plugin.h"

int main(int argc, char** argv) {
  refract::start_process(argv);
  refract::register_connectivity_table();
  return refract::run_program(
      argc, argv,
      {fmt::format("refract {} ({})", refract::kVersion, refract::kBuiltFrom),
       refract::all_commands(), refract::load_plugin});
}
