// From a consumer's sums of products to outputs: linear_sm90a.cu's second half of a tile.
#pragma once
#include "ops/optical/linear/linear_tile.cuh"

namespace refract::optical::linear {

using Sums = float[2][kColumns / 2];  // of 2 x 64 rows

constexpr int kHeld = 4;  // rows of a tile that a thread has parts of, by this much after the first
__host__ __device__ constexpr int row_offset(int r) { return r / 2 * 64 + r % 2 * 8; }

// Where a thread's outputs lie: in its rows, eight columns of each 32.
template <class T>
struct Outputs {
  T* at;              // of the first row
  int64_t stride;     // of a row
  int rows, columns;  // that are there, from the thread's first on

  __device__ __forceinline__ Outputs(const OpticalOutputArgs& a, const Tile& tile, int row) {
    const int column = tile.column + static_cast<int>(threadIdx.x) % 4 * kVector;
    stride = a.columns;
    at = static_cast<T*>(a.y) + row * stride + column;
    rows = static_cast<int>(a.rows) - row;
    columns = tile.end - column;
  }
  __device__ __forceinline__ void store(int r, int offset, const Vec<T, kVector>& v) const {
    if (row_offset(r) < rows && offset < columns) {
      store_vec(at + row_offset(r) * stride + offset, v);
    }
  }
};

// A slot of noise as a consumer reads it.
struct Noise {
  const char* slots;  // this thread's place in its warpgroup's first slot
  uint64_t *drawn, *used;

  // The blocks of the i-th 32 columns, one for each of the thread's rows.
  __device__ __forceinline__ void read(int i, PhiloxBlock (&blocks)[kHeld]) const {
    hopper::wait(drawn + i % kSlots, static_cast<uint32_t>(i / kSlots));
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      const auto* from = slots + i % kSlots * kSlotBytes + row_offset(r) * (kStep * 2);
      const uint4 v = *reinterpret_cast<const uint4*>(from);
      blocks[r] = {{v.x, v.y, v.z, v.w}};
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) hopper::arrive(used + i % kSlots);
  }
};
static_assert(row_offset(1) / 2 % 4 == 0, "a thread's rows have their noise at the same place");

// The numbers of a member that finish() needs, and what stands for noise where none is drawn.
struct Levels {
  float gain, share, offset, top, step, noise;
  uint32_t noise_base;

  __device__ __forceinline__ Levels(const Member& m, float shared_noise)
      : gain(m.gain),
        share(m.share),
        offset(m.offset),
        top(m.top),
        step(m.step),
        noise(shared_noise),
        noise_base(0x4B000000u) {
    asm volatile("" : "+r"(noise_base));  // kept in a register, or each use makes it anew
  }
  // optical::noise_of_half.
  __device__ __forceinline__ float of_half(uint32_t word, bool upper) const {
    const float f = __uint_as_float(__byte_perm(word, noise_base, upper ? 0x7632 : 0x7610));
    return __fmaf_rn(f, 1.0f / 65536.0f, -128.5f);
  }
};

// Eight outputs side by side, from their products. Clamping is the multiply-add's own saturation,
// which makes 0 of a NaN: a column's `base` and a row's `step` carry it.
template <class T, bool kDraws>
__device__ __forceinline__ Vec<T, kVector> finish(const float (&product)[kVector], float row_term,
                                                  const Levels& c, const float (&term)[kVector],
                                                  const float (&base)[kVector],
                                                  const PhiloxBlock& drawn, Range& seen) {
  const float step = __fmaf_rn(row_term, 0.0f, c.step);
  Vec<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float value = __fmaf_rn(c.gain, product[j], row_term + term[j]);
    seen = include(seen, value);
    const float xi = kDraws ? c.of_half(drawn.word[j / 2], j % 2 != 0) : c.noise;
    const float place = __saturatef(__fmaf_rn(value, c.share, c.offset));
    const float level = round_even(__fmaf_rn(place, c.top, xi));
    out.at[j] = from_float<T>(__fmaf_rn(level, step, base[j]));
  }
  return out;
}

__device__ __forceinline__ void load_eight(float (&to)[kVector], const float* from) {
#pragma unroll
  for (int j = 0; j < kVector; j += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + j);
    to[j] = v.x;
    to[j + 1] = v.y;
    to[j + 2] = v.z;
    to[j + 3] = v.w;
  }
}

template <class T, bool kDraws>
__device__ __forceinline__ void write_outputs(const Outputs<T>& outputs, const Levels& levels,
                                              const Columns& columns, const Noise& noise,
                                              const Sums& d, const float (&row_term)[kHeld],
                                              Range& seen) {
  const int own = static_cast<int>(threadIdx.x) % 4 * kVector;
#pragma unroll
  for (int i = 0; i < kColumns / kStep; ++i) {
    float term[kVector], base[kVector];
    load_eight(term, columns.term + own + kStep * i);
    load_eight(base, columns.base + own + kStep * i);
    PhiloxBlock drawn[kHeld] = {};
    if (kDraws) noise.read(i, drawn);
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      float product[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        product[j] = d[r / 2][16 * i + j / 2 * 4 + r % 2 * 2 + j % 2];
      }
      outputs.store(r, kStep * i,
                    finish<T, kDraws>(product, row_term[r], levels, term, base, drawn[r], seen));
    }
  }
}

}  // namespace refract::optical::linear
