#include "cli/commands.h"

// A new command is its own file, which defines make_<name>_command(), and a line here.
#define REFRACT_COMMANDS(X) \
  X(train)                  \
  X(launch)                 \
  X(eval)                   \
  X(generate)               \
  X(serve)                  \
  X(inspect)                \
  X(export)                 \
  X(kinds)                  \
  X(calibrate)              \
  X(sensitivity)            \
  X(spikes)                 \
  X(compare)                \
  X(chips)                  \
  X(interpolate)            \
  X(connectivity)           \
  X(align)                  \
  X(universe)               \
  X(curvature)              \
  X(merge)                  \
  X(data_stories)           \
  X(tokenize)               \
  X(tokenizer_train)        \
  X(report)                 \
  X(sweep)                  \
  X(scale)                  \
  X(bench_kernel)           \
  X(bench_mlp)              \
  X(bench_train)            \
  X(bench_decode)           \
  X(bench_premerge)

namespace refract {

#define REFRACT_DECLARE(name) std::unique_ptr<Command> make_##name##_command();
REFRACT_COMMANDS(REFRACT_DECLARE)
#undef REFRACT_DECLARE

std::vector<std::unique_ptr<Command>> all_commands() {
  std::vector<std::unique_ptr<Command>> commands;
#define REFRACT_MAKE(name) commands.push_back(make_##name##_command());
  REFRACT_COMMANDS(REFRACT_MAKE)
#undef REFRACT_MAKE
  return commands;
}

}  // namespace refract
