// CPU kernel of prefix_attention. A task is one model. It walks the nodes in their order and keeps
// the keys and values of the path from the root to where it stands; nodes that go one deeper each
// are the rows of one register tile.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/math.h"
#include "ops/common/simd.h"
#include "ops/common/tile.h"
#include "ops/many/prefix_attention.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

constexpr int64_t kPad = 16;  // elements: a whole number of vectors of any instruction set and type
constexpr int64_t kMostRows = 8;  // of a tile of any instruction set
int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

template <class T>
struct Args {
  const T* qkv;           // [A, nodes, (heads + 2 kv_heads) head_dim]
  T* out;                 // [A, nodes, heads head_dim]
  const int64_t* depths;  // [nodes]
  int64_t nodes, heads, kv_heads, head_dim;
  int64_t levels_p, dim_p;  // padded, levels with room for a vector behind the last one
  Accumulate<T> scale;
  Accumulate<T>* scratch;  // of the calling task
};

// Of one model. Every step is done for all heads before the next begins, so that a vector is not
// read while narrower stores to it are still on their way.
template <class A>
struct Scratch {
  A *k_t, *v;  // of the path, per key/value head: [head_dim, levels_p], [levels_p, dim_p]
  A *q, *y;    // of a head's rows: [rows, head_dim], [rows, dim_p]
  A *s, *p;    // scores [heads rows, levels_p]; probabilities, transposed: [levels_p, rows_p]
  A* limits;   // [rows_p]: how many keys a row sees
  int64_t rows_p;
  template <class T>
  static int64_t size(const Args<T>& a) {
    const int64_t rows_p = padded(a.heads * kMostRows);
    return a.kv_heads * (a.head_dim * a.levels_p + a.levels_p * a.dim_p) + 2 * kMostRows * a.dim_p +
           2 * rows_p * a.levels_p + rows_p;
  }
  template <class T>
  explicit REFRACT_INLINE Scratch(const Args<T>& a) : rows_p(padded(a.heads * kMostRows)) {
    A* next = a.scratch;
    const auto take = [&](int64_t n) { return next += n, next - n; };
    k_t = take(a.kv_heads * a.head_dim * a.levels_p);
    v = take(a.kv_heads * a.levels_p * a.dim_p);
    q = take(kMostRows * a.dim_p), y = take(kMostRows * a.dim_p);
    s = take(rows_p * a.levels_p), p = take(rows_p * a.levels_p);
    limits = take(rows_p);
  }
};

// Nodes that go one deeper each: the rows of a tile.
struct Run {
  int64_t first, count, depth;
};

template <class I, class T>
REFRACT_INLINE Run run_from(const Args<T>& a, int64_t first) {
  static_assert(I::kRows <= kMostRows);
  Run run{first, 1, a.depths[first]};
  while (run.count < I::kRows && first + run.count < a.nodes &&
         a.depths[first + run.count] == run.depth + run.count)
    ++run.count;
  return run;
}

// The run's keys and values become the end of the path.
template <class I, class T, class A>
REFRACT_INLINE void extend_path(const Args<T>& a, const Scratch<A>& s, const T* joint,
                                const Run& run) {
  const int64_t width = (a.heads + 2 * a.kv_heads) * a.head_dim;
  for (int64_t h = 0; h < a.kv_heads; ++h) {
    const T* k = joint + run.first * width + (a.heads + h) * a.head_dim;
    const T* v = k + a.kv_heads * a.head_dim;
    A* k_t = s.k_t + h * a.head_dim * a.levels_p + run.depth;
    A* values = s.v + (h * a.levels_p + run.depth) * a.dim_p;
    if constexpr (std::is_same_v<T, A>) {
      simd::transpose<A, I>(k, width, run.count, a.head_dim, k_t, a.levels_p);
    } else {
      for (int64_t r = 0; r < run.count; ++r) {
        for (int64_t d = 0; d < a.head_dim; ++d) k_t[d * a.levels_p + r] = widen(k[r * width + d]);
      }
    }
    for (int64_t r = 0; r < run.count; ++r) {
      for (int64_t d = 0; d < a.head_dim; ++d) values[r * a.dim_p + d] = widen(v[r * width + d]);
    }
  }
}

// Scores of `rows` rows to probabilities, over the first `length` keys. Rows lie in lanes, so that
// nothing is summed across a vector; what a row does not see becomes zero.
template <class I, class A>
REFRACT_INLINE void softmax(const Scratch<A>& s, int64_t rows, int64_t length, int64_t levels_p,
                            A scale) {
  using V = typename simd::VectorOf<A, I>::Type;
  constexpr int L = simd::kLanesOf<A, I>;
  simd::transpose<A, I>(s.s, levels_p, rows, (length + L - 1) / L * L, s.p, s.rows_p);
  for (int64_t lane = 0; lane < rows; lane += L) {
    const auto row = [&](int64_t j) { return reinterpret_cast<V*>(s.p + j * s.rows_p + lane); };
    const V limit = *reinterpret_cast<const V*>(s.limits + lane);
    V top = *row(0), total = {};
    for (int64_t j = 1; j < length; ++j) {
      const V x = static_cast<A>(j) < limit ? *row(j) : top;
      top = x > top ? x : top;
    }
    for (int64_t j = 0; j < length; ++j) {
      A e[L];
      *reinterpret_cast<V*>(e) = (*row(j) - top) * scale;
      for (int i = 0; i < L; ++i) e[i] = simd::exp(e[i]);
      *row(j) = static_cast<A>(j) < limit ? *reinterpret_cast<const V*>(e) : V{};
      total += *row(j);
    }
    const V inverse = A(1) / total;
    for (int64_t j = 0; j < length; ++j) *row(j) *= inverse;
  }
}

// The run's rows of query head `head`, in place where they are of the type that is computed in.
template <class T, class A>
REFRACT_INLINE simd::Strided<A> queries(const Args<T>& a, const Scratch<A>& s, const T* joint,
                                        const Run& run, int64_t head) {
  const int64_t width = (a.heads + 2 * a.kv_heads) * a.head_dim;
  const T* q = joint + run.first * width + head * a.head_dim;
  if constexpr (std::is_same_v<T, A>) {
    return {q, width, 1};
  } else {
    for (int64_t r = 0; r < run.count; ++r) {
      for (int64_t d = 0; d < a.head_dim; ++d) s.q[r * a.head_dim + d] = widen(q[r * width + d]);
    }
    return {s.q, a.head_dim, 1};
  }
}

template <class I, class T>
REFRACT_INLINE void attend(const Args<T>& a, const Scratch<Accumulate<T>>& s, const T* joint,
                           T* out, const Run& run) {
  using A = Accumulate<T>;
  constexpr int L = simd::kLanesOf<A, I>;
  const int64_t m = run.count, length = run.depth + m, vectors = (length + L - 1) / L,
                group = a.heads / a.kv_heads, out_width = a.heads * a.head_dim;
  for (int64_t h = 0; h < a.heads; ++h) {
    simd::product<A, I>(m, vectors, a.head_dim, queries(a, s, joint, run, h),
                        s.k_t + h / group * a.head_dim * a.levels_p, a.levels_p,
                        s.s + h * m * a.levels_p, a.levels_p);
    for (int64_t r = 0; r < m; ++r) s.limits[h * m + r] = static_cast<A>(run.depth + r + 1);
  }
  softmax<I>(s, a.heads * m, length, a.levels_p, a.scale);
  for (int64_t h = 0; h < a.heads; ++h) {
    simd::product<A, I>(m, a.dim_p / L, length, {s.p + h * m, 1, s.rows_p},
                        s.v + h / group * a.levels_p * a.dim_p, a.dim_p, s.y, a.dim_p);
    for (int64_t r = 0; r < m; ++r) {
      T* row = out + (run.first + r) * out_width + h * a.head_dim;
      for (int64_t d = 0; d < a.head_dim; ++d) row[d] = narrow<T>(s.y[r * a.dim_p + d]);
    }
  }
}

template <class I, class T>
REFRACT_INLINE void forward_body(const Args<T>& a, int64_t begin, int64_t end) {
  const Scratch<Accumulate<T>> s(a);
  for (int64_t model = begin; model < end; ++model) {
    const T* joint = a.qkv + model * a.nodes * (a.heads + 2 * a.kv_heads) * a.head_dim;
    T* out = a.out + model * a.nodes * a.heads * a.head_dim;
    for (int64_t i = 0; i < a.nodes;) {
      const Run run = run_from<I>(a, i);
      extend_path<I>(a, s, joint, run);
      attend<I>(a, s, joint, out, run);
      i += run.count;
    }
  }
}

REFRACT_TILED(forward, Args<double>)
REFRACT_TILED(forward, Args<float>)
REFRACT_TILED(forward, Args<at::BFloat16>)
REFRACT_TILED(forward, Args<at::Half>)

void check_preorder(const at::Tensor& depths, int64_t levels) {
  const int64_t* depth = depths.const_data_ptr<int64_t>();
  for (int64_t i = 0, before = -1; i < depths.numel(); before = depth[i++]) {
    TORCH_CHECK(depth[i] >= 0 && depth[i] < levels && depth[i] <= before + 1,
                "refract::prefix_attention: expected depths in preorder, below ", levels,
                " and none more than one below the node before it, got ", depth[i], " after ",
                before, " at node ", i);
  }
}

at::Tensor prefix_attention_cpu(const PrefixAttentionInputs& in) {
  prefix_attention_op::check(in);
  const at::Tensor qkv = in.qkv.contiguous(), depths = in.depths.to(at::kLong).contiguous();
  check_preorder(depths, in.levels);
  const int64_t head_dim = qkv.size(2) / (in.num_heads + 2 * in.num_kv_heads);
  at::Tensor out = at::empty({qkv.size(0), qkv.size(1), in.num_heads * head_dim}, qkv.options());
  if (qkv.numel() == 0) return out;
  dispatch_floating(qkv.scalar_type(), "prefix_attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const Args<T> args{qkv.const_data_ptr<T>(),
                       out.mutable_data_ptr<T>(),
                       depths.const_data_ptr<int64_t>(),
                       qkv.size(1),
                       in.num_heads,
                       in.num_kv_heads,
                       head_dim,
                       padded(in.levels) + kPad,
                       padded(head_dim),
                       static_cast<A>(in.scale),
                       nullptr};
    at::parallel_for(0, qkv.size(0), 1, [&](int64_t begin, int64_t end) {
      // Zeros: a tile also multiplies what lies behind the path.
      std::vector<A> memory(Scratch<A>::size(args) + kPad);
      Args<T> mine = args;
      const auto address = reinterpret_cast<uintptr_t>(memory.data());
      mine.scratch = reinterpret_cast<A*>((address + 63) / 64 * 64);
      forward(mine, begin, end);
    });
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, prefix_attention).cpu<prefix_attention_cpu>(); }

}  // namespace refract
