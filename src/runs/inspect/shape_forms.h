// Operations of torch that have no form for the meta device outside of Python.
#pragma once

namespace refract {

// Adds those that layers of ours use: they give shapes and types, no numbers. Once in a process;
// later calls do nothing.
void add_shape_forms();

}  // namespace refract
