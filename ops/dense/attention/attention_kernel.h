// Launcher of attention_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

struct ShortAttention {
  Dtype dtype;
  const void* qkv;  // [sequences, length, heads + 2 kv_heads, head_dim], 16-byte aligned
  void* out;        // [sequences, length, heads, head_dim]
  int64_t sequences, length, heads, kv_heads, head_dim;
  double scale;
};

// Only for lengths and widths of has_cuda_attention() in attention.h.
cudaError_t launch_short_attention(const ShortAttention& args, cudaStream_t stream);

}  // namespace refract
