// The shared noise of mase-triton where its seed advances: optical::mase_shared_noise() for seeds
// that lie on the device.
#pragma once
#include <ATen/core/Tensor.h>

namespace refract {

// seeds int64 [...], at least 0 -> float of the same shape and device. Nothing is asked of a GPU,
// so that a graph may be captured.
at::Tensor mase_shared_noise(const at::Tensor& seeds);

namespace composite {
// In plain tensor arithmetic, on any device.
at::Tensor mase_shared_noise(const at::Tensor& seeds);
}  // namespace composite

}  // namespace refract
