// What the x_cuda.cpp files share: the stream, the device and the check of a launch. Only for files
// of librefract_cuda.so.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

namespace refract {

// A launcher's result; raises with the op's name.
inline void check_launch(const char* op, cudaError_t error) {
  TORCH_CHECK(error == cudaSuccess, "refract::", op,
              ": the CUDA kernel could not be launched: ", cudaGetErrorString(error));
}

inline cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

// Multiprocessors of the current device; launches size their grids by it.
inline int multiprocessors() { return at::cuda::getCurrentDeviceProperties()->multiProcessorCount; }

}  // namespace refract
