// The commands of the program, one file each.
#pragma once
#include <memory>
#include <vector>

#include "core/system/command_line.h"

namespace refract {

// All of them, in the order of `refract --help`.
std::vector<std::unique_ptr<Command>> all_commands();

}  // namespace refract
