// CPU kernels of causal_attention. A task is one key/value head of one sequence with the query
// heads that it serves; its operands fit the first two caches, so every product is made from
// register tiles and nothing is blocked further. Sums run in an order that depends on shapes alone.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/math.h"
#include "ops/common/simd.h"
#include "ops/common/tile.h"
#include "ops/dense/attention/attention.h"

namespace refract {
namespace {

using simd::narrow;
using simd::widen;

constexpr int64_t kPad = 16;  // elements: a whole number of vectors of any instruction set and type
int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

template <class T>
struct Args {
  const T *qkv, *grad;  // grad [B, T, H D] is null in the forward pass
  T* out;               // [B, T, H D], or the gradient of qkv
  int64_t length, heads, kv_heads, head_dim;
  int64_t length_p, dim_p;  // padded
  Accumulate<T> scale;
  Accumulate<T>* scratch;  // of the calling task
};

// Pieces of the scratch memory, each [length, length_p] or smaller.
template <class T>
struct Scratch {
  using A = Accumulate<T>;
  A *q, *k, *v, *grad;  // [length, dim_p]: copies, where the operands can't be used in place
  A *k_t, *v_t;         // [head_dim, length_p]
  A *p, *ds;            // [length, length_p]
  A *dk, *dv;           // [length, dim_p]
  A* rows;              // [8, dim_p]: results on their way out
  static int64_t size(int64_t length, int64_t head_dim) {
    const int64_t lp = padded(length), dp = padded(head_dim);
    return 6 * length * dp + 2 * head_dim * lp + 2 * length * lp + 8 * dp;
  }
  explicit REFRACT_INLINE Scratch(const Args<T>& a) {
    A* next = a.scratch;
    const auto take = [&](int64_t n) { return next += n, next - n; };
    const int64_t rows_d = a.length * a.dim_p, rows_t = a.length * a.length_p;
    q = take(rows_d), k = take(rows_d), v = take(rows_d), grad = take(rows_d);
    dk = take(rows_d), dv = take(rows_d);
    k_t = take(a.head_dim * a.length_p), v_t = take(a.head_dim * a.length_p);
    p = take(rows_t), ds = take(rows_t);
    rows = take(8 * a.dim_p);
  }
};

template <class A>
struct Rows {
  const A* data;
  int64_t ld;
};

// Rows [length, head_dim] as A, padded with zeros to whole vectors; in place where they lie so.
template <class T>
REFRACT_INLINE Rows<Accumulate<T>> load(const Args<T>& a, const T* from, int64_t ld,
                                        Accumulate<T>* copy) {
  if constexpr (std::is_same_v<T, Accumulate<T>>) {
    if (a.head_dim == a.dim_p) return {from, ld};
  }
  for (int64_t t = 0; t < a.length; ++t) {
    for (int64_t d = 0; d < a.head_dim; ++d) copy[t * a.dim_p + d] = widen(from[t * ld + d]);
    for (int64_t d = a.head_dim; d < a.dim_p; ++d) copy[t * a.dim_p + d] = 0;
  }
  return {copy, a.dim_p};
}

template <class T>
REFRACT_INLINE void store(const Args<T>& a, const Accumulate<T>* from, int64_t rows, T* to,
                          int64_t ld) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t d = 0; d < a.head_dim; ++d) to[t * ld + d] = narrow<T>(from[t * a.dim_p + d]);
  }
}

// s [width] -> softmax of scale * s over its first n elements; the others become zero.
template <class A, int L>
REFRACT_INLINE void softmax_row(A* s, int64_t n, int64_t width, A scale) {
  A top[L], total[L];
  for (int i = 0; i < L; ++i) top[i] = s[0], total[i] = 0;
  for (int64_t j = 0; j < width; j += L) {
    for (int i = 0; i < L; ++i) top[i] = (j + i < n && s[j + i] > top[i]) ? s[j + i] : top[i];
  }
  A highest = top[0];
  for (int i = 1; i < L; ++i) highest = top[i] > highest ? top[i] : highest;
  for (int64_t j = 0; j < width; j += L) {
    for (int i = 0; i < L; ++i) {
      const A e = simd::exp((s[j + i] - highest) * scale);
      s[j + i] = j + i < n ? e : A(0);
      total[i] += s[j + i];
    }
  }
  for (int step = L / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) total[i] += total[i + step];
  }
  const A inverse = A(1) / total[0];
  for (int64_t j = 0; j < width; ++j) s[j] *= inverse;
}

// ds = p (ds - sum(p ds)) scale: the gradient by the scores from the one by the probabilities.
template <class A, int L>
REFRACT_INLINE void softmax_row_backward(const A* __restrict p, A* __restrict ds, int64_t width,
                                         A scale) {
  A total[L] = {};
  for (int64_t j = 0; j < width; j += L) {
    for (int i = 0; i < L; ++i) total[i] += p[j + i] * ds[j + i];
  }
  for (int step = L / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) total[i] += total[i + step];
  }
  const A mean = total[0];
  for (int64_t j = 0; j < width; ++j) ds[j] = p[j] * (ds[j] - mean) * scale;
}

// Rows [i, i + m) of the probabilities. Returns how many columns they have: all up to the diagonal,
// in whole vectors.
template <class I, class T>
REFRACT_INLINE int64_t probabilities(const Args<T>& a, const Scratch<T>& s, Rows<Accumulate<T>> q,
                                     int64_t i, int64_t m) {
  using A = Accumulate<T>;
  constexpr int L = simd::kLanesOf<A, I>;
  const int64_t vectors = (i + m + L - 1) / L;
  A* p = s.p + i * a.length_p;
  simd::product<A, I>(m, vectors, a.head_dim, {q.data + i * q.ld, q.ld, 1}, s.k_t, a.length_p, p,
                      a.length_p);
  for (int64_t r = 0; r < m; ++r) {
    softmax_row<A, L>(p + r * a.length_p, i + r + 1, vectors * L, a.scale);
  }
  return vectors * L;
}

// Where the heads of task `task` = (sequence, key/value head) lie in a joint row.
template <class T>
struct Place {
  int64_t width, out_width, group, first_row, q, k, v;
  REFRACT_INLINE Place(const Args<T>& a, int64_t task)
      : width((a.heads + 2 * a.kv_heads) * a.head_dim),
        out_width(a.heads * a.head_dim),
        group(a.heads / a.kv_heads),
        first_row(task / a.kv_heads * a.length),
        q(task % a.kv_heads * group * a.head_dim),
        k((a.heads + task % a.kv_heads) * a.head_dim),
        v((a.heads + a.kv_heads + task % a.kv_heads) * a.head_dim) {}
};

template <class I, class T>
REFRACT_INLINE void forward_body(const Args<T>& a, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const Scratch<T> s(a);
  const int64_t vectors = a.dim_p / simd::kLanesOf<A, I>;
  for (int64_t task = begin; task < end; ++task) {
    const Place<T> at(a, task);
    const T* joint = a.qkv + at.first_row * at.width;
    const Rows<A> k = load(a, joint + at.k, at.width, s.k),
                  v = load(a, joint + at.v, at.width, s.v);
    simd::transpose<A, I>(k.data, k.ld, a.length, a.head_dim, s.k_t, a.length_p);
    for (int64_t g = 0; g < at.group; ++g) {
      const int64_t head = at.q + g * a.head_dim;
      const Rows<A> q = load(a, joint + head, at.width, s.q);
      T* out = a.out + at.first_row * at.out_width + head;
      for (int64_t i = 0; i < a.length; i += I::kRows) {
        const int64_t m = std::min<int64_t>(I::kRows, a.length - i);
        probabilities<I>(a, s, q, i, m);
        simd::product<A, I>(m, vectors, i + m, {s.p + i * a.length_p, a.length_p, 1}, v.data, v.ld,
                            s.rows, a.dim_p);
        store(a, s.rows, m, out + i * at.out_width, at.out_width);
      }
    }
  }
}

// The gradient by one query head's q, and by the scores (s.ds) for those by k and v.
template <class I, class T>
REFRACT_INLINE void query_backward(const Args<T>& a, const Scratch<T>& s, const Place<T>& at,
                                   int64_t head, Rows<Accumulate<T>> q, Rows<Accumulate<T>> k,
                                   Rows<Accumulate<T>> grad) {
  using A = Accumulate<T>;
  constexpr int L = simd::kLanesOf<A, I>;
  T* out = a.out + at.first_row * at.width + head;
  for (int64_t i = 0; i < a.length; i += I::kRows) {
    const int64_t m = std::min<int64_t>(I::kRows, a.length - i);
    const int64_t columns = probabilities<I>(a, s, q, i, m);
    A *p = s.p + i * a.length_p, *ds = s.ds + i * a.length_p;
    simd::product<A, I>(m, columns / L, a.head_dim, {grad.data + i * grad.ld, grad.ld, 1}, s.v_t,
                        a.length_p, ds, a.length_p);
    for (int64_t r = 0; r < m; ++r) {
      softmax_row_backward<A, L>(p + r * a.length_p, ds + r * a.length_p, columns, a.scale);
    }
    simd::product<A, I>(m, a.dim_p / L, i + m, {ds, a.length_p, 1}, k.data, k.ld, s.rows, a.dim_p);
    store(a, s.rows, m, out + i * at.width, at.width);
  }
}

// out [length, dim_p] (+)= weights^T rows, where weights [length, length] is lower triangular.
template <class I, class T, class A>
REFRACT_INLINE void add_transposed(const Args<T>& a, const A* weights, Rows<A> rows, A* out,
                                   bool add) {
  for (int64_t j = 0; j < a.length; j += I::kRows) {
    const int64_t m = std::min<int64_t>(I::kRows, a.length - j);
    simd::product<A, I>(m, a.dim_p / simd::kLanesOf<A, I>, a.length - j,
                        {weights + j * a.length_p + j, 1, a.length_p}, rows.data + j * rows.ld,
                        rows.ld, out + j * a.dim_p, a.dim_p, add);
  }
}

template <class I, class T>
REFRACT_INLINE void backward_body(const Args<T>& a, int64_t begin, int64_t end) {
  using A = Accumulate<T>;
  const Scratch<T> s(a);
  for (int64_t task = begin; task < end; ++task) {
    const Place<T> at(a, task);
    const T* joint = a.qkv + at.first_row * at.width;
    const Rows<A> k = load(a, joint + at.k, at.width, s.k),
                  v = load(a, joint + at.v, at.width, s.v);
    simd::transpose<A, I>(k.data, k.ld, a.length, a.head_dim, s.k_t, a.length_p);
    simd::transpose<A, I>(v.data, v.ld, a.length, a.head_dim, s.v_t, a.length_p);
    for (int64_t g = 0; g < at.group; ++g) {
      const int64_t head = at.q + g * a.head_dim;
      const Rows<A> q = load(a, joint + head, at.width, s.q);
      const Rows<A> grad =
          load(a, a.grad + at.first_row * at.out_width + head, at.out_width, s.grad);
      query_backward<I>(a, s, at, head, q, k, grad);
      add_transposed<I>(a, s.ds, q, s.dk, g > 0);
      add_transposed<I>(a, s.p, grad, s.dv, g > 0);
    }
    T* out = a.out + at.first_row * at.width;
    store(a, s.dk, a.length, out + at.k, at.width);
    store(a, s.dv, a.length, out + at.v, at.width);
  }
}

REFRACT_TILED(forward, Args<double>)
REFRACT_TILED(forward, Args<float>)
REFRACT_TILED(forward, Args<at::BFloat16>)
REFRACT_TILED(forward, Args<at::Half>)
REFRACT_TILED(backward, Args<double>)
REFRACT_TILED(backward, Args<float>)
REFRACT_TILED(backward, Args<at::BFloat16>)
REFRACT_TILED(backward, Args<at::Half>)

// Runs `kernel` over all (sequence, key/value head), each thread with scratch memory of its own.
template <class T>
void for_heads(const Args<T>& args, int64_t batch,
               void (*kernel)(const Args<T>&, int64_t, int64_t)) {
  constexpr int64_t kGrain = 1 << 16;  // multiplications that are worth a thread's start
  const int64_t group = args.heads / args.kv_heads;
  const int64_t each = std::max<int64_t>(2 * group * args.length * args.length_p * args.dim_p, 1);
  at::parallel_for(
      0, batch * args.kv_heads, std::max<int64_t>(kGrain / each, 1),
      [&](int64_t begin, int64_t end) {
        std::vector<Accumulate<T>> memory(Scratch<T>::size(args.length, args.head_dim) + kPad);
        auto address = reinterpret_cast<uintptr_t>(memory.data());
        Args<T> mine = args;
        mine.scratch = reinterpret_cast<Accumulate<T>*>((address + 63) / 64 * 64);
        kernel(mine, begin, end);
      });
}

template <class T>
Args<T> arguments(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads, double scale) {
  const int64_t length = qkv.size(1), head_dim = qkv.size(2) / (num_heads + 2 * num_kv_heads);
  return {qkv.const_data_ptr<T>(),
          nullptr,
          nullptr,
          length,
          num_heads,
          num_kv_heads,
          head_dim,
          padded(length),
          padded(head_dim),
          static_cast<Accumulate<T>>(scale),
          nullptr};
}

at::Tensor causal_attention_cpu(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  const at::Tensor qkv = in.qkv.contiguous();
  const int64_t width = qkv.size(2) / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads;
  at::Tensor out = at::empty({qkv.size(0), qkv.size(1), width}, qkv.options());
  if (qkv.numel() == 0) return out;
  dispatch_floating(qkv.scalar_type(), "causal_attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    Args<T> args = arguments<T>(qkv, in.num_heads, in.num_kv_heads, in.scale);
    args.out = out.mutable_data_ptr<T>();
    for_heads<T>(args, qkv.size(0), &forward);
  });
  return out;
}

at::Tensor causal_attention_backward_cpu(const CausalAttentionBackwardInputs& in) {
  causal_attention_op::check_backward(in);
  const at::Tensor qkv = in.qkv.contiguous(), grad = in.grad.contiguous();
  at::Tensor out = at::empty(qkv.sizes(), qkv.options());
  if (qkv.numel() == 0) return out;
  dispatch_floating(qkv.scalar_type(), "causal_attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    Args<T> args = arguments<T>(qkv, in.num_heads, in.num_kv_heads, in.scale);
    args.grad = grad.const_data_ptr<T>();
    args.out = out.mutable_data_ptr<T>();
    for_heads<T>(args, qkv.size(0), &backward);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, causal_attention).cpu<causal_attention_cpu>();
  forms(m, causal_attention_backward).cpu<causal_attention_backward_cpu>();
}

}  // namespace refract
