// The arguments that every bench command takes.
#pragma once
#include "bench/settings.h"
#include "core/system/command_line.h"

namespace refract {

void declare(CommandLine& line, BenchSettings& settings);

}  // namespace refract
