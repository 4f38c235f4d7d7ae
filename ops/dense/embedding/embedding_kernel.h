// Launchers of embedding_kernel.cu, over raw device pointers.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

// out[i] = wte[tokens[i]] + wpe[i % length]; wpe (already at its offset) may be null. Arrays of
// dtype, rows of `width`.
cudaError_t launch_embed(Dtype dtype, const void* tokens, bool wide_tokens, const void* wte,
                         int64_t rows, const void* wpe, int64_t positions, int64_t length,
                         int64_t width, void* out, cudaStream_t stream);

// Positions per tile of the sorted list; scratch holds two rows per tile.
constexpr int kEmbedTile = 32;

// sorted: the n tokens in ascending order, order: the position each came from. Writes the sum of
// grad's rows for every token that occurs; `out` [rows, width] must be zero. scratch: float
// [2 * ceil(n / kEmbedTile) * width].
cudaError_t launch_embed_backward(Dtype dtype, const void* sorted, bool wide_tokens,
                                  const int64_t* order, int64_t n, const void* grad, int64_t rows,
                                  int64_t width, float* scratch, void* out, cudaStream_t stream);

// out[p] = sum over b of grad[b, p - offset], zero for p outside [offset, offset + length).
cudaError_t launch_embed_positions_backward(Dtype dtype, const void* grad, int64_t batch,
                                            int64_t length, int64_t width, int64_t positions,
                                            int64_t offset, void* out, cudaStream_t stream);

}  // namespace refract
