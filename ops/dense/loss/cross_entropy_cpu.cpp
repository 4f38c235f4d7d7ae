// On the CPU the classes are cut into blocks whose logits [rows, block] stay in the second-level
// cache. Pass one makes the logits block by block and keeps each row's maximum and sum per block;
// pass two turns a block into the gradient while it is hot and multiplies it into dx and dweight.
// Between the passes logits are kept, or made again where C is so small that the product is cheaper
// than the memory. Every core works on its own blocks with one-threaded GEMMs. The sums' order
// depends on shapes only, never on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/gemm_cpu.h"
#include "ops/common/math.h"
#include "ops/common/simd.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/dense/loss/logit_row.h"

namespace refract {
namespace {

constexpr int64_t kBlockBytes = int64_t{1} << 20;
constexpr int64_t kMaxRows = 1024;
constexpr int64_t kRecomputeWidth = 64;  // up to this C the logits are made twice
constexpr int64_t kMaxSlices = 64;       // independent partial sums of dx, one task each
constexpr int64_t kSliceBytes = int64_t{32} << 20;

REFRACT_SIMD float row_max(const float* x, int64_t n) { return row_max_body(x, n); }
double row_max(const double* x, int64_t n) { return row_max_body(x, n); }
REFRACT_SIMD float row_sum_exp(const float* x, int64_t n, float shift) {
  return row_sum_exp_body(x, n, shift);
}
double row_sum_exp(const double* x, int64_t n, double shift) {
  return row_sum_exp_body(x, n, shift);
}
REFRACT_SIMD void row_softmax(float* x, int64_t n, float lse) {
  for (int64_t j = 0; j < n; ++j) x[j] = simd::exp(x[j] - lse);
}
void row_softmax(double* x, int64_t n, double lse) {
  for (int64_t j = 0; j < n; ++j) x[j] = std::exp(x[j] - lse);
}

// What pass one leaves per row and block, and per row.
template <class T>
struct Statistics {
  std::vector<T> max, sum;      // [blocks][rows]
  std::vector<T> target_logit;  // [rows]
  std::vector<char> beaten;     // [rows]: an earlier class of the target's block is as good
  std::vector<T> lse;           // [rows]
};

template <class T>
struct Pass {
  at::Tensor x, weight;  // [rows, C], [V, C]
  const int64_t* target;
  int64_t rows, classes, block, blocks;

  int64_t begin(int64_t b) const { return b * block; }
  int64_t width(int64_t b) const { return std::min(block, classes - begin(b)); }
  // Between rows of a block's logits: room for whole vectors, and no power of two, which would put
  // a column into few sets of the cache.
  int64_t stride() const { return gemm::rounded_up(block) + gemm::kWhole; }
  at::Tensor block_weight(int64_t b) const { return weight.narrow(0, begin(b), width(b)); }
  const T* block_data(int64_t b) const {
    return weight.template const_data_ptr<T>() + begin(b) * weight.size(1);
  }
};

template <class T>
void block_statistics(const Pass<T>& pass, int64_t b, const T* logits, Statistics<T>& s) {
  const int64_t width = pass.width(b), first = pass.begin(b);
  for (int64_t r = 0; r < pass.rows; ++r) {
    const int64_t target = pass.target[r];
    if (target == kIgnoredTarget) continue;
    const T* row = logits + r * pass.stride();
    const T top = row_max(row, width);
    s.max[b * pass.rows + r] = top;
    s.sum[b * pass.rows + r] = row_sum_exp(row, width, top);
    if (target >= first && target < first + width) {
      const T mine = row[target - first];
      s.target_logit[r] = mine;
      for (int64_t j = 0; mine == top && j < target - first; ++j) s.beaten[r] |= row[j] == mine;
    }
  }
}

// Merges the blocks' statistics in ascending order; adds to loss and correct.
template <class T>
void merge_statistics(const Pass<T>& pass, Statistics<T>& s, double& loss, int64_t& correct) {
  for (int64_t r = 0; r < pass.rows; ++r) {
    const int64_t target = pass.target[r];
    if (target == kIgnoredTarget) continue;
    T top = s.max[r];
    int64_t top_block = 0;
    for (int64_t b = 1; b < pass.blocks; ++b) {
      if (s.max[b * pass.rows + r] > top) top = s.max[b * pass.rows + r], top_block = b;
    }
    double sum = 0;
    for (int64_t b = 0; b < pass.blocks; ++b) {
      const size_t i = b * pass.rows + r;
      sum += static_cast<double>(s.sum[i]) * std::exp(static_cast<double>(s.max[i] - top));
    }
    const double lse = static_cast<double>(top) + std::log(sum);
    s.lse[r] = static_cast<T>(lse);
    loss += lse - static_cast<double>(s.target_logit[r]);
    correct += s.target_logit[r] == top && target / pass.block == top_block && !s.beaten[r];
  }
}

// Logits of a block become the gradient of the loss by them.
template <class T>
void block_gradient(const Pass<T>& pass, int64_t b, T* logits, const Statistics<T>& s) {
  const int64_t width = pass.width(b), first = pass.begin(b);
  for (int64_t r = 0; r < pass.rows; ++r) {
    const int64_t target = pass.target[r];
    T* row = logits + r * pass.stride();
    if (target == kIgnoredTarget) {
      std::fill(row, row + width, T{0});
      continue;
    }
    row_softmax(row, width, s.lse[r]);
    if (target >= first && target < first + width) row[target - first] -= T{1};
  }
}

// Calls f(task) for every task, each on one core, below autograd (worker threads have no guard).
template <class F>
void for_tasks(int64_t tasks, const F& f) {
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t task = begin; task < end; ++task) f(task);
  });
}

// A block's logits [rows, stride]: its part of `kept`, or scratch.
template <class T>
at::Tensor block_logits(const Pass<T>& pass, int64_t b, const at::Tensor& kept) {
  return kept.defined() ? kept.select(0, b)
                        : at::empty({pass.rows, pass.stride()}, pass.x.options());
}

// The three products, of fp32 in our own tiles and of fp64 by the BLAS library.
bool tiled(const Pass<float>& pass) { return pass.x.size(1) % gemm::kWhole == 0; }

// logits = x W_b^T.
template <class T>
void make_logits(const Pass<T>& pass, int64_t b, at::Tensor& logits) {
  const int64_t width = pass.width(b), inner = pass.x.size(1);
  if constexpr (std::is_same_v<T, float>) {
    if (tiled(pass)) {
      gemm::multiply_transposed(pass.rows, width, inner,
                                {pass.x.template const_data_ptr<T>(), inner, 1}, pass.block_data(b),
                                inner, logits.mutable_data_ptr<T>(), pass.stride());
      return;
    }
  }
  at::Tensor out = logits.narrow(1, 0, width);
  at::mm_out(out, pass.x, pass.block_weight(b).t());
}

// dx [rows, C] (+)= logits W_b.
template <class T>
void add_dx(const Pass<T>& pass, int64_t b, const at::Tensor& logits, at::Tensor out, bool add) {
  const int64_t width = pass.width(b), inner = pass.x.size(1);
  if constexpr (std::is_same_v<T, float>) {
    if (tiled(pass)) {
      gemm::multiply(pass.rows, inner, width, {logits.const_data_ptr<T>(), pass.stride(), 1},
                     pass.block_data(b), inner, out.mutable_data_ptr<T>(), inner, add);
      return;
    }
  }
  at::addmm_out(out, out, logits.narrow(1, 0, width), pass.block_weight(b), add ? 1 : 0, 1);
}

// dweight_b [width, C] (+)= logits^T x.
template <class T>
void add_dweight(const Pass<T>& pass, int64_t b, const at::Tensor& logits, at::Tensor out,
                 bool add) {
  const int64_t width = pass.width(b), inner = pass.x.size(1);
  if constexpr (std::is_same_v<T, float>) {
    if (tiled(pass)) {
      gemm::multiply(width, inner, pass.rows, {logits.const_data_ptr<T>(), 1, pass.stride()},
                     pass.x.template const_data_ptr<T>(), inner, out.mutable_data_ptr<T>(), inner,
                     add);
      return;
    }
  }
  at::addmm_out(out, out, logits.narrow(1, 0, width).t(), pass.x, add ? 1 : 0, 1);
}

// The calling thread's, kept from call to call: memory of this size goes back to the system at
// once, and getting its pages again costs more than a pass over them.
template <class T>
at::Tensor scratch(int64_t size) {
  thread_local at::Tensor buffer;
  if (!buffer.defined() || buffer.numel() < size) {
    buffer = at::Tensor();
    buffer = at::empty({size}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
  }
  return buffer.narrow(0, 0, size);
}

template <class T>
class Chunked {
 public:
  Chunked(const cross_entropy::Inputs& in, int64_t classes, bool need_dx, bool need_dweight,
          int64_t chunk_rows)
      : x_(in.x), weight_(in.weight.narrow(0, 0, classes)), classes_(classes) {
    const at::Tensor wide = in.targets.to(at::kLong).contiguous();
    targets_.assign(wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel());
    for (const int64_t target : targets_) {
      TORCH_CHECK_INDEX(target == kIgnoredTarget || (target >= 0 && target < classes),
                        "refract::linear_cross_entropy: expected targets in [0, ", classes, ") or ",
                        kIgnoredTarget, ", got ", target);
    }
    chunk_rows_ = chunk_rows > 0 ? chunk_rows : kMaxRows;
    if (need_dx) dx_ = at::empty(x_.sizes(), x_.options());
    if (need_dweight) dweight_ = at::zeros(in.weight.sizes(), x_.options());
  }

  void run() {
    const int64_t n = x_.size(0);
    for (int64_t begin = 0; begin < n; begin += chunk_rows_) {
      chunk(begin, std::min(chunk_rows_, n - begin));
    }
  }

  at::Tensor dx_, dweight_;
  double loss_ = 0;
  int64_t correct_ = 0;

 private:
  void chunk(int64_t begin, int64_t rows) {
    Pass<T> pass{x_.narrow(0, begin, rows), weight_, targets_.data() + begin, rows, classes_, 0, 0};
    const int64_t fit = kBlockBytes / (rows * static_cast<int64_t>(sizeof(T)));
    pass.block = std::clamp<int64_t>(fit / 16 * 16, 64, std::max<int64_t>(classes_, 64));
    pass.blocks = (classes_ + pass.block - 1) / pass.block;
    const bool gradient = dx_.defined() || dweight_.defined();
    at::Tensor kept;
    if (gradient && x_.size(1) > kRecomputeWidth)
      kept =
          scratch<T>(pass.blocks * rows * pass.stride()).view({pass.blocks, rows, pass.stride()});
    Statistics<T> s;
    s.max.resize(pass.blocks * rows);
    s.sum.resize(pass.blocks * rows);
    s.target_logit.resize(rows);
    s.beaten.resize(rows);
    s.lse.resize(rows);
    for_tasks(pass.blocks, [&](int64_t b) {
      at::Tensor logits = block_logits(pass, b, kept);
      make_logits(pass, b, logits);
      block_statistics(pass, b, logits.template const_data_ptr<T>(), s);
    });
    merge_statistics(pass, s, loss_, correct_);
    if (gradient) gradients(pass, s, kept, begin);
  }

  void gradients(const Pass<T>& pass, const Statistics<T>& s, const at::Tensor& kept,
                 int64_t begin) {
    const int64_t rows = pass.rows, width = x_.size(1);
    const int64_t by_memory = kSliceBytes / std::max<int64_t>(rows * width * sizeof(T), 1);
    const int64_t slices = std::min(pass.blocks, std::clamp<int64_t>(by_memory, 2, kMaxSlices));
    at::Tensor partial;
    if (dx_.defined()) partial = at::empty({slices, rows, width}, x_.options());
    for_tasks(slices, [&](int64_t slice) {
      const int64_t from = pass.blocks * slice / slices, to = pass.blocks * (slice + 1) / slices;
      for (int64_t b = from; b < to; ++b) {
        at::Tensor logits = block_logits(pass, b, kept);
        if (!kept.defined()) make_logits(pass, b, logits);
        block_gradient(pass, b, logits.template mutable_data_ptr<T>(), s);
        if (partial.defined()) add_dx(pass, b, logits, partial.select(0, slice), b > from);
        if (dweight_.defined()) {
          add_dweight(pass, b, logits, dweight_.narrow(0, pass.begin(b), pass.width(b)), begin > 0);
        }
      }
    });
    if (partial.defined()) add_slices(partial, begin);
  }

  void add_slices(const at::Tensor& partial, int64_t begin) {
    const int64_t slices = partial.size(0), size = partial.size(1) * partial.size(2);
    const T* from = partial.const_data_ptr<T>();
    T* to = dx_.mutable_data_ptr<T>() + begin * x_.size(1);
    at::parallel_for(0, size, 16384, [&](int64_t first, int64_t last) {
      std::copy(from + first, from + last, to + first);
      for (int64_t slice = 1; slice < slices; ++slice) {
        const T* add = from + slice * size;
        for (int64_t i = first; i < last; ++i) to[i] += add[i];
      }
    });
  }

  at::Tensor x_, weight_;
  int64_t classes_, chunk_rows_;
  std::vector<int64_t> targets_;
};

CrossEntropyForward forward_cpu(const CrossEntropyForwardInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  auto flat = cross_entropy::flatten(in.x, in.weight, in.targets, in.num_classes);
  const at::ScalarType dtype = in.x.scalar_type();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  // Half types are computed in fp32 throughout: few CPUs multiply them faster.
  flat.x = flat.x.to(wide);
  flat.weight = flat.weight.to(wide);
  auto run = [&](auto tag) -> CrossEntropyForward {
    using T = typename decltype(tag)::type;
    Chunked<T> chunked(flat, in.num_classes, in.need_dx, in.need_dweight, in.chunk_rows);
    chunked.run();
    at::Tensor loss = at::empty({}, flat.x.options());
    *loss.mutable_data_ptr<T>() = static_cast<T>(chunked.loss_);
    at::Tensor correct = at::empty({}, flat.targets.options().dtype(at::kLong));
    *correct.mutable_data_ptr<int64_t>() = chunked.correct_;
    at::Tensor dx =
        in.need_dx ? chunked.dx_.to(dtype).view(in.x.sizes()) : at::empty({0}, in.x.options());
    at::Tensor dweight = in.need_dweight ? chunked.dweight_ : at::empty({0}, flat.x.options());
    return {loss, correct, dx, dweight};
  };
  return wide == at::kDouble ? run(TypeTag<double>{}) : run(TypeTag<float>{});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, linear_cross_entropy_forward).cpu<forward_cpu>(); }

}  // namespace refract
