// Whether librefract_cuda.so holds code that the current device can run. For .cu files and
// launchers.
#pragma once

namespace refract {

// An image of the device's architecture, or PTX that its driver compiles.
bool has_kernel_image();

// The kernels for compute capability 9.0 alone (x_sm90a.cu): they have an image and no PTX.
bool has_hopper_image();

}  // namespace refract
