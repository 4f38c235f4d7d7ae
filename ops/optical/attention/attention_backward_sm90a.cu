// Optical attention, backward, for compute capability 9.0 and a known mean = P v:
//   delta = dO . mean, dS = P (dO V^T - delta), dV = P^T dO, dK = scale dS^T Q, dQ = scale dS K.
// One kernel has a block of keys and runs over the queries of one head that see them. It writes dS
// in 16 bits, tile by tile, from which a second kernel multiplies dQ: so scores, noise and
// probabilities are computed once. Where heads share keys, the second kernel also adds their dK and
// dV, in a fixed order: no sum depends on timing. The launcher goes through the batch in parts, for
// what lies between the two kernels to stay small.
#include "ops/optical/attention/attention_hopper.cuh"

namespace refract::attention::sm90a {
namespace {

// A part of the batch: groups of heads that share keys, [first, first + count) of batch * kv_heads,
// and its scratch memory.
template <class T>
struct Part {
  int first, count;
  Tile<T>* scores;  // [heads of the part, tiles]
  float* sums;      // [heads of the part, tiles of keys, 2, 64, 64], dK and dV; where heads share
                    // keys
};
// What a block of either kernel works at.
struct Place {
  int per_group, part_head, group, batch, kv_head, head, offset, lane, warp;
  template <class T>
  __device__ __forceinline__ Place(const OpticalAttentionArgs& a, const Part<T>& part) {
    per_group = a.heads / a.kv_heads;
    part_head = static_cast<int>(blockIdx.x);
    group = part.first + part_head / per_group;
    batch = group / a.kv_heads;
    kv_head = group % a.kv_heads;
    head = kv_head * per_group + part_head % per_group;
    offset = a.keys - a.queries;
    lane = static_cast<int>(threadIdx.x) % 32;
    warp = static_cast<int>(threadIdx.x) / 32;
  }
};

// ---- dK, dV and dS

constexpr int kStages = 2;

template <class T>
union KeyStage {
  GradQueryRecord<T> queries;
  unsigned char bytes[kRecordBytes];
};
template <class T>
struct KeyShared {
  alignas(1024) KeyStage<T> stages[kStages];
  Tile<__half> code;  // of keys
  Tile<T> value;
  uint64_t arrived[kStages];
  Constants constants;
};

// Noise for this thread's two keys of a warp's 16 and, n = 0 and 1, two neighbours of its 16
// queries: words[n][i] holds query i's random bits for both keys, low half and high half. A Philox
// block serves keys 8 apart, which two threads hold: each draws it for one n, and they exchange
// halves. Chosen by selectors of bytes, since the compiler would make branches of conditions.
struct Exchange {
  uint32_t mine, theirs, first, second;
  __device__ __forceinline__ explicit Exchange(int lane) {
    const bool upper = lane >= 16;
    mine = upper ? 0x7632u : 0x5410u;
    theirs = upper ? 0x5410u : 0x7632u;
    first = upper ? 0x7654u : 0x3210u;
    second = upper ? 0x3210u : 0x7654u;
  }
  __device__ __forceinline__ void operator()(const PhiloxBlock& block,
                                             uint32_t (&words)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t even = block.word[2 * i], odd = block.word[2 * i + 1];
      const uint32_t kept = __byte_perm(even, odd, mine);
      const uint32_t got = __shfl_xor_sync(0xffffffffu, __byte_perm(even, odd, theirs), 16);
      words[0][i] = __byte_perm(kept, got, first);
      words[1][i] = __byte_perm(kept, got, second);
    }
  }
};

template <class T>
struct KeyBlock : Place {
  const OpticalAttentionArgs& a;
  KeyShared<T>& shared;
  int first_key, first_tile, tiles;  // the tiles of queries that see one of the keys
  const GradQueryRecord<T>* queries;
  const GradKeyRecord<T>* keys;
  ScoreLevels s;
  float span, key_add[2];

  __device__ __forceinline__ KeyBlock(const OpticalAttentionArgs& args, KeyShared<T>& memory,
                                      const Part<T>& part)
      : Place(args, part), a(args), shared(memory) {
    const int query_tiles = tiles_of(a.queries);
    first_key = static_cast<int>(blockIdx.y) * kSide;  // the first keys are seen by most
    first_tile = max(first_key - offset, 0) / kSide;
    tiles = query_tiles - first_tile;
    queries = static_cast<const GradQueryRecord<T>*>(a.q_tiles) +
              (static_cast<int64_t>(batch) * a.heads + head) * query_tiles + first_tile;
    keys = static_cast<const GradKeyRecord<T>*>(a.k_tiles) +
           static_cast<int64_t>(group) * tiles_of(a.keys) + blockIdx.y;
  }
  __device__ __forceinline__ int key() const { return first_key + 16 * warp + 2 * (lane / 4); }
  __device__ __forceinline__ void prepare_levels() {
    s = score_levels(a, shared.constants);
    span = s.top * 65536.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      key_add[r] = fmaf(keys->term.at[key() + r - first_key], s.per_x, s.shift);
    }
  }
  // With the first tile come the block's keys.
  __device__ __forceinline__ void start(int tile) const {
    uint64_t* arrived = &shared.arrived[tile % kStages];
    constexpr uint32_t kQueries = sizeof(GradQueryRecord<T>);
    hopper::arrive_expecting(arrived, kQueries + (tile == 0 ? 2 * kTileBytes : 0));
    if (tile == 0) hopper::copy_bytes(&shared.code, &keys->code, 2 * kTileBytes, arrived);
    hopper::copy_bytes(&shared.stages[tile % kStages], queries + tile, kQueries, arrived);
  }
};

// p = the probabilities of a tile of scores, transposed, from its code products; x = dS from dP.
template <bool kMasked, class T>
__device__ __forceinline__ void gradients(const KeyBlock<T>& b, const ScoreNoise& noise,
                                          const Exchange& exchange,
                                          const GradQueryRecord<T>& queries, int first,
                                          wgmma::Sum& p, wgmma::Sum& x) {
  const OpticalAttentionArgs& a = b.a;
  const int t = b.lane % 4;
  const auto block_column = static_cast<uint32_t>((b.first_key + 16 * b.warp) / 4 + b.lane / 4 % 4);
#pragma unroll
  for (int two = 0; two < 4; ++two) {
    const int query = first + 16 * t + 4 * two;  // of four
    const uint32_t pair =
        static_cast<uint32_t>(query + b.offset) / 2 + static_cast<uint32_t>(b.lane / 16);
    uint32_t words[2][2];
    exchange(noise.draw(a, noise.row(a, pair), block_column), words);
    const auto four_of = [&](const Numbers& numbers) {
      return *reinterpret_cast<const float4*>(&numbers.at[16 * t + 4 * two]);
    };
    const float4 term = four_of(queries.term), normalizer = four_of(queries.normalizer),
                 delta = four_of(queries.delta);
    const float add[4] = {term.x, term.y, term.z, term.w};
    const float shift[4] = {normalizer.x, normalizer.y, normalizer.z, normalizer.w};
    const float mean[4] = {delta.x, delta.y, delta.z, delta.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int m = i / 4, n = 2 * two + m, c = i % 4, q = 2 * m + c % 2;
      // Fragment rows are keys and columns queries.
      const float random = noise_of(a, words[m][c % 2], c / 2 == 1);
      const float position = fmaf(p[n][c], b.s.unit, fmaf(add[q], b.s.per_x, b.key_add[c / 2]));
      const float level = shifted_level(position, b.span, random) - kLevelShift;
      float probability = exp2_approximate(fmaf(level, b.s.log2, shift[q]));
      if (kMasked && b.key() + c / 2 > query + q + b.offset) probability = 0.0f;
      p[n][c] = probability;
      x[n][c] = probability * (x[n][c] - mean[q]);
    }
  }
}

// dS of a tile as the dQ kernel's left operand: rows are keys, in order, and elements queries.
template <class T>
__device__ __forceinline__ void store_scores(Tile<T>& tile, const mma::A (&x)[4], int warp,
                                             int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = 16 * warp + 2 * (lane / 4) + r;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      *reinterpret_cast<uint4*>(tile.at + chunk_at(row, 2 * (lane % 4) + h)) = {
          x[2 * h].r[r], x[2 * h].r[r + 2], x[2 * h + 1].r[r], x[2 * h + 1].r[r + 2]};
    }
  }
}

template <class T>
__device__ __forceinline__ void write_row(T* to, const wgmma::Sum& sum, int r, float factor) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    *reinterpret_cast<uint32_t*>(to + 8 * n) =
        mma::pack<T>(sum[n][2 * r] * factor, sum[n][2 * r + 1] * factor);
  }
}
template <class T>
__device__ __forceinline__ void write_keys(const KeyBlock<T>& b, const OpticalAttentionGradArgs& g,
                                           const Part<T>& part, const wgmma::Sum& grad_k,
                                           const wgmma::Sum& grad_v) {
  const OpticalAttentionArgs& a = b.a;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (b.per_group > 1) {
      const int64_t tile = static_cast<int64_t>(b.part_head) * tiles_of(a.keys) + blockIdx.y;
      float* to = part.sums + 2 * tile * kTileElements + (b.key() + r - b.first_key) * kSide +
                  2 * (b.lane % 4);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        *reinterpret_cast<float2*>(to + 8 * n) = {grad_k[n][2 * r], grad_k[n][2 * r + 1]};
        *reinterpret_cast<float2*>(to + 8 * n + kTileElements) = {grad_v[n][2 * r],
                                                                  grad_v[n][2 * r + 1]};
      }
    } else if (b.key() + r < a.keys) {
      const int64_t token = static_cast<int64_t>(b.batch) * a.keys + b.key() + r;
      const int64_t at = (token * a.kv_heads + b.kv_head) * kSide + 2 * (b.lane % 4);
      write_row(static_cast<T*>(g.grad_k) + at, grad_k, r, a.scale);
      write_row(static_cast<T*>(g.grad_v) + at, grad_v, r, 1.0f);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    key_gradient_kernel(const OpticalAttentionArgs a, const OpticalAttentionGradArgs g,
                        const Part<T> part) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  KeyShared<T>& shared = *reinterpret_cast<KeyShared<T>*>(memory);
  KeyBlock<T> b(a, shared, part);
  if (threadIdx.x == 0) {
    for (auto& arrived : shared.arrived) hopper::init_barrier(&arrived, 1);
    hopper::fence_barrier_init();
    b.start(0);
    if (b.tiles > 1) b.start(1);
  }
  prepare(a, shared.constants);
  __syncthreads();
  b.prepare_levels();
  const ScoreNoise noise(a, b.batch, b.head);
  const Exchange exchange(b.lane);
  const ScoreTiles places(a);
  const wgmma::Operand own_code = operand(shared.code), own_value = operand(shared.value);
  wgmma::Sum grad_k = {}, grad_v = {};
  for (int tile = 0; tile < b.tiles; ++tile) {
    hopper::wait(&shared.arrived[tile % kStages], tile / kStages % 2);
    const GradQueryRecord<T>& queries = shared.stages[tile % kStages].queries;
    const wgmma::Operand code = operand(queries.code), grad = operand(queries.grad),
                         query = operand(queries.query);
    wgmma::Sum p, x;
    wgmma::begin();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma::multiply_shared<__half, false, false>(p, wgmma::along_rows(own_code, step),
                                                   wgmma::along_rows(code, step), step == 0);
    }
    wgmma::commit();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma::multiply_shared<T, false, false>(x, wgmma::along_rows(own_value, step),
                                              wgmma::along_rows(grad, step), step == 0);
    }
    wgmma::commit();
    wgmma::wait<0>();
    const int query_tile = b.first_tile + tile, first = query_tile * kSide;
    if (first + b.offset < b.first_key + kSide - 1) {
      gradients<true>(b, noise, exchange, queries, first, p, x);
    } else {
      gradients<false>(b, noise, exchange, queries, first, p, x);
    }
    mma::A left_p[4], left_x[4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      left_p[step] = left_operand<T>(p, step);
      left_x[step] = left_operand<T>(x, step);
    }
    wgmma::begin();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma::multiply<T, true>(grad_v, left_p[step], wgmma::down_rows(grad, step));
      wgmma::multiply<T, true>(grad_k, left_x[step], wgmma::down_rows(query, step));
    }
    wgmma::commit();
    const int64_t place = b.part_head * score_tiles(a) + places.before(query_tile) + blockIdx.y;
    store_scores(part.scores[place], left_x, b.warp, b.lane);
    wgmma::wait<0>();
    __syncthreads();
    if (threadIdx.x == 0 && tile + kStages < b.tiles) b.start(tile + kStages);
  }
  write_keys(b, g, part, grad_k, grad_v);
#endif
}

// ---- dQ

constexpr int kQueryStages = 2, kTogether = 2;  // tiles of queries that share the keys' tiles

template <class T>
struct QueryShared {
  struct Stage {
    Tile<T> key, score[kTogether];
  };
  alignas(1024) Stage stages[kQueryStages];
  uint64_t arrived[kQueryStages];
};

// dQ of kTogether tiles of queries from `first` on.
template <class T>
struct QueryBlock : Place {
  const OpticalAttentionArgs& a;
  QueryShared<T>& shared;
  int first, tiles[kTogether];  // of keys that each sees; none where there are no such queries
  const Tile<T>* scores[kTogether];
  const GradKeyRecord<T>* keys;
  __device__ __forceinline__ QueryBlock(const OpticalAttentionArgs& args, QueryShared<T>& memory,
                                        const Part<T>& part, int first_tile)
      : Place(args, part), a(args), shared(memory), first(first_tile) {
    const ScoreTiles places(a);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const bool exists = first + i < tiles_of(a.queries);
      tiles[i] = exists ? min(places.of_queries(first + i), tiles_of(a.keys)) : 0;
      scores[i] = part.scores + part_head * score_tiles(a) + places.before(first + i);
    }
    keys = static_cast<const GradKeyRecord<T>*>(a.k_tiles) +
           static_cast<int64_t>(group) * tiles_of(a.keys);
  }
  __device__ __forceinline__ int most() const { return max(tiles[0], tiles[1]); }
  __device__ __forceinline__ void start(int tile) const {
    uint64_t* arrived = &shared.arrived[tile % kQueryStages];
    typename QueryShared<T>::Stage& to = shared.stages[tile % kQueryStages];
    hopper::arrive_expecting(arrived, kTileBytes * (1 + (tile < tiles[0]) + (tile < tiles[1])));
    hopper::copy_bytes(&to.key, &keys[tile].key, kTileBytes, arrived);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (tile < tiles[i]) hopper::copy_bytes(&to.score[i], scores[i] + tile, kTileBytes, arrived);
    }
  }
};

template <class T>
__device__ __forceinline__ void multiply_scores(const QueryBlock<T>& b,
                                                const OpticalAttentionGradArgs& g) {
  static_assert(kTogether == 2, "most() and start() name two");
  const OpticalAttentionArgs& a = b.a;
  QueryShared<T>& shared = b.shared;
  const int tiles = b.most();
  if (threadIdx.x == 0) {
    for (auto& arrived : shared.arrived) hopper::init_barrier(&arrived, 1);
    hopper::fence_barrier_init();
    for (int tile = 0; tile < min(kQueryStages, tiles); ++tile) b.start(tile);
  }
  __syncthreads();
  wgmma::Sum sum[kTogether] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kQueryStages;
    hopper::wait(&shared.arrived[stage], tile / kQueryStages % 2);
    const wgmma::Operand key = operand(shared.stages[stage].key);
    wgmma::begin();
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (tile >= b.tiles[i]) continue;
      const wgmma::Operand score = operand(shared.stages[stage].score[i]);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        wgmma::multiply_shared<T, true, true>(sum[i], wgmma::down_rows(score, step),
                                              wgmma::down_rows(key, step));
      }
    }
    wgmma::commit();
    wgmma::wait<0>();
    __syncthreads();
    if (threadIdx.x == 0 && tile + kQueryStages < tiles) b.start(tile + kQueryStages);
  }
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = (b.first + i) * kSide + 16 * b.warp + b.lane / 4 + 8 * r;
      if (row >= a.queries) continue;
      const int64_t token = static_cast<int64_t>(b.batch) * a.queries + row;
      write_row(static_cast<T*>(g.grad_q) + (token * a.heads + b.head) * kSide + 2 * (b.lane % 4),
                sum[i], r, a.scale);
    }
  }
}

// Adds a group's dK and dV of a tile of keys, each of its blocks a share.
template <class T>
__device__ __forceinline__ void add_heads(const OpticalAttentionArgs& a,
                                          const OpticalAttentionGradArgs& g, const Part<T>& part,
                                          const Place& at, int key_tile) {
  constexpr int kPerRow = kSide / 4, kItems = kTileElements / 4;
  const int64_t head_step = 2ll * tiles_of(a.keys) * kTileElements;
  const int rank = at.part_head % at.per_group;
  const float* sums =
      part.sums + (at.part_head - rank) * head_step + 2ll * key_tile * kTileElements;
  for (int item = rank * kThreads + static_cast<int>(threadIdx.x); item < 2 * kItems;
       item += at.per_group * kThreads) {
    const int row = item % kItems / kPerRow, column = item % kPerRow * 4;
    if (key_tile * kSide + row >= a.keys) continue;
    float4 sum = {};
    for (int head = 0; head < at.per_group; ++head) {
      const float4 x = __ldcs(reinterpret_cast<const float4*>(sums + head * head_step) + item);
      sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
    }
    const bool of_key = item < kItems;
    const float factor = of_key ? a.scale : 1.0f;
    const int64_t token = static_cast<int64_t>(at.batch) * a.keys + key_tile * kSide + row;
    *reinterpret_cast<uint2*>(static_cast<T*>(of_key ? g.grad_k : g.grad_v) +
                              (token * a.kv_heads + at.kv_head) * kSide + column) = {
        mma::pack<T>(sum.x * factor, sum.y * factor), mma::pack<T>(sum.z * factor, sum.w * factor)};
  }
}

__host__ __device__ __forceinline__ int query_blocks(const OpticalAttentionArgs& a) {
  return (tiles_of(a.queries) + kTogether - 1) / kTogether;
}
// Blocks of queries, long rows first, then those of a tile of keys.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    query_gradient_kernel(const OpticalAttentionArgs a, const OpticalAttentionGradArgs g,
                          const Part<T> part) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  const int blocks = query_blocks(a), block = static_cast<int>(blockIdx.y);
  if (block < blocks) {
    QueryShared<T>& shared = *reinterpret_cast<QueryShared<T>*>(memory);
    multiply_scores(QueryBlock<T>(a, shared, part, (blocks - 1 - block) * kTogether), g);
  } else {
    add_heads(a, g, part, Place(a, part), block - blocks);
  }
#endif
}

// ---- Launches

int64_t sum_bytes(const OpticalAttentionArgs& a) {  // of a head
  if (a.heads == a.kv_heads) return 0;
  return int64_t{2} * tiles_of(a.keys) * kTileElements * static_cast<int64_t>(sizeof(float));
}

template <class T>
cudaError_t launch(const OpticalAttentionArgs& a, const OpticalAttentionGradArgs& g, int at_once,
                   cudaStream_t stream) {
  cudaError_t error = allow_shared(key_gradient_kernel<T>, sizeof(KeyShared<T>));
  if (error == cudaSuccess) error = allow_shared(query_gradient_kernel<T>, sizeof(QueryShared<T>));
  const int groups = a.batch * a.kv_heads, per_group = a.heads / a.kv_heads;
  const int64_t tiles = score_tiles(a) * per_group * at_once;
  Part<T> part{0, 0, static_cast<Tile<T>*>(g.scratch), nullptr};
  part.sums = reinterpret_cast<float*>(part.scores + tiles);
  for (; part.first < groups && error == cudaSuccess; part.first += at_once) {
    part.count = at_once < groups - part.first ? at_once : groups - part.first;
    const auto heads = static_cast<unsigned>(part.count * per_group);
    const auto blocks = static_cast<unsigned>(query_blocks(a));
    const auto key_tiles = static_cast<unsigned>(tiles_of(a.keys));
    key_gradient_kernel<T>
        <<<dim3(heads, key_tiles), kThreads, sizeof(KeyShared<T>), stream>>>(a, g, part);
    const dim3 grid(heads, blocks + (per_group > 1 ? key_tiles : 0));
    query_gradient_kernel<T><<<grid, kThreads, sizeof(QueryShared<T>), stream>>>(a, g, part);
    error = cudaGetLastError();
  }
  return error;
}

}  // namespace
}  // namespace refract::attention::sm90a

namespace refract {

AttentionTileBytes attention_tile_bytes(const OpticalAttentionArgs& a, bool backward) {
  using namespace attention::sm90a;
  const int64_t queries = int64_t{a.batch} * a.heads * tiles_of(a.queries);
  const int64_t keys = int64_t{a.batch} * a.kv_heads * tiles_of(a.keys);
  if (!backward) {
    return {queries * static_cast<int64_t>(sizeof(QueryRecord)),
            keys * static_cast<int64_t>(sizeof(KeyRecord<__half>)),
            int64_t{a.batch} * a.heads * score_tiles(a) * kTileElements, 0};
  }
  const int64_t per_head = score_tiles(a) * kTileBytes + sum_bytes(a);
  return {queries * static_cast<int64_t>(sizeof(GradQueryRecord<__half>)),
          keys * static_cast<int64_t>(sizeof(GradKeyRecord<__half>)), 0,
          per_head * (a.heads / a.kv_heads)};
}

cudaError_t launch_attention_backward_hopper(const OpticalAttentionArgs& a,
                                             const OpticalAttentionGradArgs& g, int groups,
                                             Dtype dtype, cudaStream_t stream) {
  return attention::dispatch_half(dtype, [&](auto element) {
    return attention::sm90a::launch<decltype(element)>(a, g, groups, stream);
  });
}

}  // namespace refract
