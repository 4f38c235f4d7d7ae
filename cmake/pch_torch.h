// The same for targets that use torch; single-op headers keep this small.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "pch.h"
