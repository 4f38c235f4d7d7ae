// Launcher of split_attention_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace refract {

struct SplitAttention {
  const float* qkv;  // [sequences, length, heads + 2 kv_heads, head_dim], 16-byte aligned
  void* out;         // bfloat16 [sequences, length, 3, heads, head_dim], as split_bfloat16() has it
  int64_t sequences, length, heads, kv_heads, head_dim;
  double scale;
};

// Only for head widths of has_cuda_split_attention() in split.h.
cudaError_t launch_split_attention(const SplitAttention& args, cudaStream_t stream);

}  // namespace refract
