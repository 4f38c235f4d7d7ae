#include "core/expression.h"

#include "fuzz/fuzz_target.h"

FUZZ_TARGET(expression) { refract::evaluate_expression(text, {{"N", 1e6}, {"C", 64}}); }
