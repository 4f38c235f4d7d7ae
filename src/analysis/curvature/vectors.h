// Sums over long flat vectors, in double whatever their type.
#pragma once
#include <ATen/core/Tensor.h>

namespace refract {

double dot_of(const at::Tensor& a, const at::Tensor& b);
double length_of(const at::Tensor& a);

}  // namespace refract
