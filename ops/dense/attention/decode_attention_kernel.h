// Launcher of the decode attention kernel over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

// Strides are in elements; the head_dim elements of a head, and the places of a key head, lie one
// behind the other.
struct DecodeAttentionArgs {
  const void *q, *keys, *values;
  const int64_t* lengths;             // [batch]
  void* out;                          // [batch, heads, head_dim]
  int64_t q_stride;                   // of the batch; heads lie side by side
  int64_t batch_stride, head_stride;  // of keys and values
  int batch, heads, key_heads, places, head_dim;
  float scale;
};

// Whether the kernel takes the shape: whole 16-byte vectors, a head in at most 32 of them.
bool decode_attention_fits(int64_t head_dim, Dtype dtype);
cudaError_t launch_decode_attention(const DecodeAttentionArgs& a, Dtype dtype, int multiprocessors,
                                    cudaStream_t stream);

}  // namespace refract
