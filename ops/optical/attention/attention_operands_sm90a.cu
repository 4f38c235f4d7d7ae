// What the attention kernels for compute capability 9.0 read, in records of tiles
// (attention_hopper.cuh): codes and the sums that the product needs, beside the unquantized
// operands.
#include "ops/device/vector.cuh"
#include "ops/optical/attention/attention_encoder.cuh"
#include "ops/optical/attention/attention_hopper.cuh"
#include "ops/optical/quantize/ranges.cuh"

namespace refract::attention::sm90a {
namespace {

constexpr int kBlock = optical::kThreads, kPerRow = kSide / 8;

// What a thread has: eight neighbours of a row.
struct Piece {
  int64_t record;  // of all heads' tiles
  int batch, head, token, row, chunk;
  bool valid;  // not past the end
  __device__ __forceinline__ Piece(int64_t item, int heads, int tokens, int tiles) {
    chunk = static_cast<int>(item % kPerRow);
    row = static_cast<int>(item / kPerRow % kSide);
    record = item / (kPerRow * kSide);
    const auto tile = static_cast<int>(record % tiles);
    const auto outer = static_cast<int>(record / tiles);
    batch = outer / heads;
    head = outer % heads;
    token = tile * kSide + row;
    valid = token < tokens;
  }
  template <class T>
  __device__ __forceinline__ Vec<T, 8> load(const AttentionTensor& t) const {
    if (!valid) return {};
    return load_vec<T, 8>(head_of<T>(t, batch, head) + token * t.token + chunk * 8);
  }
  template <class T>
  __device__ __forceinline__ void store(Tile<T>& tile, int tile_row, const Vec<T, 8>& x) const {
    store_vec(tile.at + chunk_at(tile_row, chunk), x);
  }
};

__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int offset = kPerRow / 2; offset > 0; offset >>= 1) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  return x;
}

// Codes of a piece, zeros past the end; their row's sum in `sum`.
template <class T>
__device__ __forceinline__ Vec<__half, 8> encode(const Encoder& encoder, const Vec<T, 8>& x,
                                                 bool valid, float* sum) {
  Vec<__half, 8> codes{};
  *sum = 0.0f;
  if (valid) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float code = encoder(to_float(x.at[i]));
      codes.at[i] = __float2half_rn(code);
      *sum += code;
    }
  }
  *sum = row_sum(*sum);
  return codes;
}

// Calls f(piece) for every piece of a block; all threads of a block go round together.
template <class F>
__device__ __forceinline__ void for_pieces(int batch, int heads, int tokens, F&& f) {
  const int tiles = tiles_of(tokens);
  const int64_t count = static_cast<int64_t>(batch) * heads * tiles * kSide * kPerRow;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlock;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; item < count;
       item += stride) {
    f(Piece(item, heads, tokens, tiles));
  }
}

template <class T>
__device__ __forceinline__ optical::Range include_all(optical::Range r, const Vec<T, 8>& x,
                                                      bool valid) {
  if (!valid) return r;
#pragma unroll
  for (int i = 0; i < 8; ++i) r = optical::include(r, to_float(x.at[i]));
  return r;
}

// blockIdx.y is q, k or v.
template <class T>
__global__ void __launch_bounds__(kBlock) forward_operands_kernel(const OpticalAttentionArgs a) {
  __shared__ Constants constants;
  prepare(a, constants);
  __syncthreads();
  const Product product = product_of(constants);
  const Role role = blockIdx.y == 0 ? kQuery : blockIdx.y == 1 ? kKey : kValue;
  const Encoder encoder(constants, role);
  optical::Range seen = optical::unset_range();
  if (role == kQuery) {
    for_pieces(a.batch, a.heads, a.queries, [&](const Piece& p) {
      QueryRecord& to = static_cast<QueryRecord*>(a.q_tiles)[p.record];
      const Vec<T, 8> x = p.load<T>(a.q);
      seen = include_all(seen, x, p.valid);
      float sum;
      p.store(to.code, paired(p.row), encode(encoder, x, p.valid, &sum));
      if (p.chunk == 0) to.term.at[p.row] = fmaf(sum, product.row, product.constant * kSide);
    });
  } else {
    for_pieces(a.batch, a.kv_heads, a.keys, [&](const Piece& p) {
      KeyRecord<T>& to = static_cast<KeyRecord<T>*>(a.k_tiles)[p.record];
      const Vec<T, 8> x = p.load<T>(role == kKey ? a.k : a.v);
      seen = include_all(seen, x, p.valid);
      float sum;
      const Vec<__half, 8> codes = encode(encoder, x, p.valid, &sum);
      if (role == kKey) {
        p.store(to.code, in_order(p.row), codes);
        if (p.chunk == 0) to.term.at[p.row] = sum * product.column;
      } else {
        p.store(to.value_code, in_order(p.row), codes);
        if (a.mean != nullptr) p.store(to.value, in_order(p.row), x);
      }
    });
  }
  seen = optical::block_range(seen);
  if (threadIdx.x == 0) see(a, role, seen);
}

// blockIdx.y is q (with the output's gradient) or k and v. Writes delta = dO . mean, too.
template <class T>
__global__ void __launch_bounds__(kBlock)
    backward_operands_kernel(const OpticalAttentionArgs a, const OpticalAttentionGradArgs g) {
  __shared__ Constants constants;
  prepare(a, constants);
  __syncthreads();
  const Product product = product_of(constants);
  if (blockIdx.y == 0) {
    const Encoder encoder(constants, kQuery);
    const AttentionTensor mean{const_cast<void*>(g.mean),
                               static_cast<int64_t>(a.queries) * a.heads * kSide,
                               static_cast<int64_t>(a.heads) * kSide, kSide};
    for_pieces(a.batch, a.heads, a.queries, [&](const Piece& p) {
      GradQueryRecord<T>& to = static_cast<GradQueryRecord<T>*>(a.q_tiles)[p.record];
      const Vec<T, 8> x = p.load<T>(a.q), grad = p.load<T>(g.grad_out), y = p.load<T>(mean);
      float sum, delta = 0.0f;
      const int row = gathered(p.row);
      p.store(to.code, row, encode(encoder, x, p.valid, &sum));
      p.store(to.grad, row, grad);
      p.store(to.query, row, x);
#pragma unroll
      for (int i = 0; i < 8; ++i) delta = fmaf(to_float(grad.at[i]), to_float(y.at[i]), delta);
      delta = row_sum(p.valid ? delta : 0.0f);
      if (p.chunk != 0) return;
      const int64_t head_row = (static_cast<int64_t>(p.batch) * a.heads + p.head) * a.queries;
      to.term.at[p.row] = fmaf(sum, product.row, product.constant * kSide);
      to.normalizer.at[p.row] = p.valid ? a.normalizer[head_row + p.token] : -INFINITY;
      to.delta.at[p.row] = delta;
    });
  } else {
    const Encoder encoder(constants, kKey);
    for_pieces(a.batch, a.kv_heads, a.keys, [&](const Piece& p) {
      GradKeyRecord<T>& to = static_cast<GradKeyRecord<T>*>(a.k_tiles)[p.record];
      const Vec<T, 8> x = p.load<T>(a.k);
      float sum;
      p.store(to.code, paired(p.row), encode(encoder, x, p.valid, &sum));
      p.store(to.value, paired(p.row), p.load<T>(a.v));
      p.store(to.key, in_order(p.row), x);
      if (p.chunk == 0) to.term.at[p.row] = sum * product.column;
    });
  }
}

}  // namespace
}  // namespace refract::attention::sm90a

namespace refract {

cudaError_t launch_attention_operands_hopper(const OpticalAttentionArgs& a,
                                             const OpticalAttentionGradArgs* g, Dtype dtype,
                                             int multiprocessors, cudaStream_t stream) {
  return attention::dispatch_half(dtype, [&](auto element) {
    using namespace attention::sm90a;
    using T = decltype(element);
    const int64_t q_rows = static_cast<int64_t>(a.heads) * tiles_of(a.queries);
    const int64_t k_rows = static_cast<int64_t>(a.kv_heads) * tiles_of(a.keys);
    const int64_t items = a.batch * (q_rows > k_rows ? q_rows : k_rows) * kSide * kPerRow;
    const int64_t blocks = (items + kBlock - 1) / kBlock;
    const int64_t most = static_cast<int64_t>(multiprocessors) * 4;
    const dim3 grid(static_cast<unsigned>(blocks < most ? blocks : most), g == nullptr ? 3 : 2);
    if (g == nullptr) {
      forward_operands_kernel<T><<<grid, kBlock, 0, stream>>>(a);
    } else {
      backward_operands_kernel<T><<<grid, kBlock, 0, stream>>>(a, *g);
    }
    return cudaGetLastError();
  });
}

}  // namespace refract
