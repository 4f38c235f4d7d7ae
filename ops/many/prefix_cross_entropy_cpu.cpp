// CPU kernel of prefix_cross_entropy. A task is a block of rows of one model. It passes over blocks
// of classes whose logits stay in the second-level cache, and keeps per row the running maximum,
// where it was, and the sum of exponentials. The sums' order depends on shapes only.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/common/define.h"
#include "ops/common/gemm_cpu.h"
#include "ops/dense/loss/logit_row.h"
#include "ops/many/prefix_cross_entropy.h"

namespace refract {
namespace {

constexpr int64_t kRowBlock = 256;
constexpr int64_t kClassBlock = 1024;  // a megabyte of logits

REFRACT_SIMD float row_max(const float* x, int64_t n) { return row_max_body(x, n); }
REFRACT_SIMD float row_sum_exp(const float* x, int64_t n, float shift) {
  return row_sum_exp_body(x, n, shift);
}

struct Args {
  const float *x, *weight;  // [A, N, C], [A, Vp, C] of which models lie weight_stride apart
  const int64_t *rows, *targets, *counts;
  int64_t models, nodes, width, classes, pairs, weight_stride;
};

struct Totals {
  double loss = 0;
  int64_t correct = 0;
};

// What is known of a row after some blocks of classes.
struct Row {
  float top = 0;
  int64_t best = 0;
  double sum = 0;  // of exp(logit - top)
  void add(const float* logits, int64_t first, int64_t n) {
    const float highest = row_max(logits, n);
    const double part = row_sum_exp(logits, n, highest);
    if (first == 0 || highest > top) {
      sum = part + (first == 0 ? 0 : sum * std::exp(static_cast<double>(top) - highest));
      best = first + (std::find(logits, logits + n, highest) - logits);
      top = highest;
    } else {
      sum += part * std::exp(static_cast<double>(highest) - top);
    }
  }
  double log_sum_exp() const { return static_cast<double>(top) + std::log(sum); }
};

Totals rows_of_model(const Args& a, int64_t model, int64_t begin, int64_t end) {
  const int64_t* from = std::lower_bound(a.rows, a.rows + a.pairs, begin);
  const int64_t* to = std::lower_bound(from, a.rows + a.pairs, end);
  const int64_t first_pair = from - a.rows, pairs = to - from;
  const int64_t block = std::min(a.classes, kClassBlock);
  // No power of two, which would put a column of logits into few sets of the cache.
  const int64_t stride = gemm::rounded_up(block) + gemm::kWhole;
  thread_local std::vector<float> logits;
  logits.resize(std::max(logits.size(), static_cast<size_t>(kRowBlock * stride)));
  std::vector<Row> state(end - begin);
  std::vector<float> mine(pairs);
  for (int64_t first = 0; first < a.classes; first += block) {
    const int64_t n = std::min(block, a.classes - first);
    gemm::multiply_transposed(
        end - begin, n, a.width, {a.x + (model * a.nodes + begin) * a.width, a.width, 1},
        a.weight + model * a.weight_stride + first * a.width, a.width, logits.data(), stride);
    for (int64_t r = 0; r < end - begin; ++r) state[r].add(logits.data() + r * stride, first, n);
    for (int64_t p = 0; p < pairs; ++p) {
      const int64_t column = a.targets[first_pair + p] - first;
      if (column >= 0 && column < n) mine[p] = logits[(from[p] - begin) * stride + column];
    }
  }
  Totals totals;
  int64_t row = -1;
  double lse = 0;
  for (int64_t p = 0; p < pairs; ++p) {
    if (from[p] != row) row = from[p], lse = state[row - begin].log_sum_exp();
    const int64_t count = a.counts[first_pair + p];
    totals.loss += static_cast<double>(count) * (lse - static_cast<double>(mine[p]));
    totals.correct += state[row - begin].best == a.targets[first_pair + p] ? count : 0;
  }
  return totals;
}

// Also before the composite form, which would read another row's logits.
void check_pairs(const at::Tensor& rows_in, const at::Tensor& targets_in, int64_t nodes,
                 int64_t classes) {
  const int64_t *rows = rows_in.const_data_ptr<int64_t>(),
                *targets = targets_in.const_data_ptr<int64_t>();
  for (int64_t p = 0; p < rows_in.numel(); ++p) {
    TORCH_CHECK_INDEX(rows[p] >= (p > 0 ? rows[p - 1] : 0) && rows[p] < nodes,
                      "refract::prefix_cross_entropy: expected ascending rows in [0, ", nodes,
                      "), got ", rows[p]);
    TORCH_CHECK_INDEX(targets[p] >= 0 && targets[p] < classes,
                      "refract::prefix_cross_entropy: expected targets in [0, ", classes, "), got ",
                      targets[p]);
  }
}

bool ours(const at::Tensor& x) {
  return x.scalar_type() != at::kDouble && x.size(2) % gemm::kWhole == 0 && x.numel() > 0;
}

BatchedCrossEntropy prefix_cross_entropy_cpu(const PrefixCrossEntropyInputs& in) {
  prefix_cross_entropy_op::check(in);
  const at::Tensor rows = in.rows.contiguous(), targets = in.targets.contiguous(),
                   counts = in.counts.contiguous();
  check_pairs(rows, targets, in.x.size(1), in.num_classes);
  if (!ours(in.x))
    return composite::prefix_cross_entropy(
        {in.x, in.weight, rows, targets, counts, in.num_classes});
  // Half types are computed in fp32 throughout: few CPUs multiply them faster.
  const at::Tensor x = in.x.to(at::kFloat).contiguous();
  at::Tensor weight = in.weight.to(at::kFloat);
  if (!weight.select(0, 0).is_contiguous()) weight = weight.contiguous();
  const Args a{x.const_data_ptr<float>(),
               weight.const_data_ptr<float>(),
               rows.const_data_ptr<int64_t>(),
               targets.const_data_ptr<int64_t>(),
               counts.const_data_ptr<int64_t>(),
               x.size(0),
               x.size(1),
               x.size(2),
               in.num_classes,
               rows.numel(),
               weight.stride(0)};
  const int64_t blocks = (a.nodes + kRowBlock - 1) / kRowBlock;
  std::vector<Totals> parts(a.models * blocks);
  at::parallel_for(0, a.models * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kRowBlock;
      parts[task] = rows_of_model(a, task / blocks, first, std::min(first + kRowBlock, a.nodes));
    }
  });
  at::Tensor loss = at::empty({a.models}, x.options().dtype(at::kDouble));
  at::Tensor correct = at::empty({a.models}, rows.options());
  for (int64_t m = 0; m < a.models; ++m) {
    Totals total;
    for (int64_t b = 0; b < blocks; ++b) {
      total.loss += parts[m * blocks + b].loss;
      total.correct += parts[m * blocks + b].correct;
    }
    loss.mutable_data_ptr<double>()[m] = total.loss;
    correct.mutable_data_ptr<int64_t>()[m] = total.correct;
  }
  return {loss, correct};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, prefix_cross_entropy).cpu<prefix_cross_entropy_cpu>();
}

}  // namespace refract
