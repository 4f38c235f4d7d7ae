// Launchers of the optical attention kernels over raw device pointers. Head widths 32, 64 and 128;
// the first query is the key `keys - queries`, which is even.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/common/dtype.h"
#include "ops/common/philox.h"

namespace refract {

// A [batch, tokens, heads, head_dim] tensor with its strides in elements; head_dim is contiguous
// and every row starts at a multiple of 16 bytes.
struct AttentionTensor {
  void* data;
  int64_t batch, token, head;
};

struct OpticalAttentionArgs {
  int batch, heads, kv_heads, queries, keys, head_dim;
  float scale;     // of the scores before the softmax
  int levels;      // of every quantizer
  float lut_min;   // of the second operands, keys and values
  bool one_noise;  // every element draws shared_noise
  float shared_noise;
  PhiloxKey output_key;
  uint32_t score_keys[kNoiseRounds][2];  // the key of each Philox round
  // A score's noise + 1/2 + 1, a float in [1, 2), is (16 random bits << 7 & noise_mask) |
  // noise_bits.
  uint32_t noise_mask, noise_bits;
  // The same as 2^23 + the 16 bits, from a word's low or high half: the bytes of (word, noise_base)
  // that these choose.
  uint32_t noise_low, noise_high, noise_base;
  const int64_t* clock;  // step, first sequence of the batch
  AttentionTensor q, k, v;

  // Roles are q, k, scores, v, output.
  const float* ranges;  // [5, 2] as they were before the call
  uint32_t* seen;       // [5, 2] what the call saw, as ordered integers; null: not asked
  float seen_score_scale;

  void *q_code, *k_code, *v_code;  // fp16 [batch, heads, tokens, head_dim]
  float *q_term, *k_term;          // [batch, heads, tokens]

  void *q_tiles, *k_tiles, *kept_levels;  // of the kernels for compute capability 9.0, below

  void* out;          // [batch, queries, heads, head_dim]
  float* normalizer;  // [batch, heads, queries]: log2 of a probability is
                      // score level * log2(e) * scale * step + normalizer
  void* mean;         // [batch, queries, heads, head_dim], sum_j P v before any quantization; null:
                      // not asked
};

struct OpticalAttentionGradArgs {
  AttentionTensor grad_out;
  const void* out;                 // [batch, queries, heads, head_dim]
  const void* mean;                // as above; null: not known
  float* delta;                    // [batch, heads, queries]
  void *grad_q, *grad_k, *grad_v;  // contiguous, as q, k, v
  void* scratch;                   // of the kernels for compute capability 9.0, below
};

// Sets `seen` to nothing.
cudaError_t launch_attention_reset(const OpticalAttentionArgs& a, cudaStream_t stream);
// q, k, v -> codes and terms, and their ranges into `seen`. An unset range is first measured,
// unless the caller knows that there is none.
cudaError_t launch_attention_operands(const OpticalAttentionArgs& a, Dtype dtype, bool with_v,
                                      bool ranges_set, int multiprocessors, cudaStream_t stream);
// Codes -> out and normalizer, and the ranges of scores and output into `seen`; unset ranges as
// above. Without `all` only what measures them.
cudaError_t launch_attention_forward(const OpticalAttentionArgs& a, Dtype dtype, bool ranges_set,
                                     bool all, cudaStream_t stream);
// used [5, 2]: the ranges that the call quantized with. With `running` (the same memory as
// a.ranges), moves it by what the call saw.
cudaError_t launch_attention_finish(const OpticalAttentionArgs& a, float* used, float* running,
                                    float smooth, bool clipped, cudaStream_t stream);
// Codes and terms of q and k, normalizer, out -> the gradients. Every range of a.ranges is set.
cudaError_t launch_attention_backward(const OpticalAttentionArgs& a,
                                      const OpticalAttentionGradArgs& g, Dtype dtype,
                                      cudaStream_t stream);

// For compute capability 9.0, head width 64 and at most 256 levels, ranges set or measured. The
// operands are laid out in tiles; the forward pass writes `mean` too if it is asked, the backward
// pass needs it. The backward pass goes through the batch * kv_heads groups of heads in parts of
// `groups`, for which it needs g.scratch.
struct AttentionTileBytes {
  int64_t queries, keys;  // of a.q_tiles and a.k_tiles
  int64_t levels;         // of a.kept_levels, which may be null; forward only
  int64_t scratch;        // of a group; backward only
};
AttentionTileBytes attention_tile_bytes(const OpticalAttentionArgs& a, bool backward);
cudaError_t launch_attention_operands_hopper(const OpticalAttentionArgs& a,
                                             const OpticalAttentionGradArgs* g, Dtype dtype,
                                             int multiprocessors, cudaStream_t stream);
cudaError_t launch_attention_forward_hopper(const OpticalAttentionArgs& a, Dtype dtype,
                                            cudaStream_t stream);
cudaError_t launch_attention_backward_hopper(const OpticalAttentionArgs& a,
                                             const OpticalAttentionGradArgs& g, int groups,
                                             Dtype dtype, cudaStream_t stream);

}  // namespace refract
