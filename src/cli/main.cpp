#include "cli/commands.h"
#include "core/system/process_start.h"
#include "studies/connectivity/connectivity_config.h"

int main(int argc, char** argv) {
  refract::start_process(argv);
  refract::register_connectivity_table();
  return refract::run_program(argc, argv, refract::all_commands());
}
