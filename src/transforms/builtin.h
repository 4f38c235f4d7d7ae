// The kinds of this program, one line each.
#pragma once
#include <vector>

#include "transforms/kind.h"

namespace refract {

std::vector<KindEntry> builtin_kinds();

}  // namespace refract
