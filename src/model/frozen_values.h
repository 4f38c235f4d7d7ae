// The part of an arena that is not trained. It exists once, in the compute type: ParameterArena's
// master() ends before it where the two types differ.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/parameters.h"

namespace refract {

// Its values, flat [n] as they lie behind master()'s; empty where master() holds them too.
at::Tensor frozen_values(const ParameterArena& arena);

// Every value of the arena, flat, in the type of master(): a copy.
at::Tensor all_values(const ParameterArena& arena);

// Takes such a copy, and refreshes the compute type.
void set_all_values(ParameterArena& arena, const at::Tensor& values);

}  // namespace refract
