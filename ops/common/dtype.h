// The element types that the CUDA kernels know, named without a torch header so that .cu files can
// use them. The float64 forms of ops are composite or CPU only.
#pragma once

namespace refract {

enum class Dtype { kFloat32, kBFloat16, kFloat16 };

}  // namespace refract
