// The loss of a row of logits that come tile after tile as a warpgroup's accumulators.
#pragma once
#include <cmath>

namespace refract {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e30f;  // below every logit, and finite: (lowest - lowest) is 0

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What a thread knows of one of its rows; it sees every fourth pair of columns.
struct OnlineRow {
  int target;
  float top = kLowest, sum = 0.0f, hit = -INFINITY;
  float lost = 0.0f;         // of the sum, by rounding: the true one is sum - lost
  float before = -INFINITY;  // the maximum over classes before the target

  // kValues logits: value(2 j + i) is that of column tile + offset + 8 j + i.
  template <int kValues, class F>
  __device__ __forceinline__ void add(int tile, int offset, F value) {
    float most[4] = {value(0), value(1), value(2), value(3)};
#pragma unroll
    for (int i = 4; i < kValues; ++i) most[i % 4] = fmaxf(most[i % 4], value(i));
    const float highest = fmaxf(fmaxf(top, fmaxf(most[0], most[1])), fmaxf(most[2], most[3]));
    const float shift = highest * kLog2E;
    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < kValues; ++i) part[i % 4] += exp2_fast(fmaf(value(i), kLog2E, -shift));
    add_part((part[0] + part[1]) + (part[2] + part[3]), exp2_fast((top - highest) * kLog2E));
    if (static_cast<unsigned>(target - tile) < 4 * kValues) find<kValues>(tile + offset, value);
    top = highest;
  }

  // Kahan's sum: once a class has nearly all of the mass, that of a tile is below half a unit in
  // the last place of the sum, and thousands of tiles would go for nothing.
  __device__ __forceinline__ void add_part(float part, float scale) {
    sum *= scale;
    const float missing = part - lost * scale, next = sum + missing;
    lost = (next - sum) - missing;
    sum = next;
  }

  // Rare: the target is in the tile.
  template <int kValues, class F>
  __device__ __forceinline__ void find(int first, F value) {
    float lower = top;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const int column = first + 8 * (i / 2) + i % 2;
      if (column < target) lower = fmaxf(lower, value(i));
      if (column == target) hit = value(i);
    }
    before = lower;
  }
};

// The accumulators of a warpgroup's tile: columns tile + offset + 8 j + {0, 1} of rows r and r + 8.
template <int kColumns>
__device__ __forceinline__ void add_tile(OnlineRow (&row)[2], const float (&d)[kColumns / 2],
                                         int tile, int offset) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row[r].template add<kColumns / 4>(tile, offset,
                                      [&](int i) { return d[i / 2 * 4 + i % 2 + 2 * r]; });
  }
}
template <int kColumns>
__device__ __forceinline__ void mask_tile(float (&d)[kColumns / 2], int first, int classes) {
  if (first + kColumns <= classes) return;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    if (first + 8 * (i / 4) + i % 2 >= classes) d[i] = -INFINITY;
  }
}

}  // namespace refract
