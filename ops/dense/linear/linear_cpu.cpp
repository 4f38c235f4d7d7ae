// CPU kernels of linear in fp32; other types, few rows and ragged widths are the composite form, a
// BLAS library's. Only the forward product needs its weight transposed, and does so panel by panel;
// the others read all three matrices as they lie. Every sum runs over the whole inner dimension in
// order, so results do not depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/common/define.h"
#include "ops/common/gemm_cpu.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace {

constexpr int64_t kRowBlock = 256;            // rows that a panel of the weight is transposed for
constexpr int64_t kGradRows = 32;             // rows of grad_x or of grad_weight in a task
constexpr int64_t kFewestRows = 32;           // below this the weight is hardly read more than once
constexpr int64_t kWorth = int64_t{1} << 19;  // multiplications that are worth a second thread

struct Args {
  const float *x, *weight, *bias, *grad;        // [M, K], [N, K], [N] or null, [M, N] (backward)
  float *y, *grad_x, *grad_weight, *grad_bias;  // null where not wanted
  int64_t rows, inner, outer;                   // M, K, N
  int64_t x_tasks;                              // backward: that many tasks for grad_x come first
};

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// A block of rows and a panel of columns.
void forward(const Args& a, int64_t task) {
  const int64_t panels = blocks(a.outer, gemm::kPanel);
  const int64_t row = task / panels * kRowBlock, column = task % panels * gemm::kPanel;
  gemm::multiply_transposed(
      std::min(kRowBlock, a.rows - row), std::min(gemm::kPanel, a.outer - column), a.inner,
      {a.x + row * a.inner, a.inner, 1}, a.weight + column * a.inner, a.inner,
      a.y + row * a.outer + column, a.outer, a.bias != nullptr ? a.bias + column : nullptr);
}

void grad_x_rows(const Args& a, int64_t row) {
  gemm::multiply(std::min(kGradRows, a.rows - row), a.inner, a.outer,
                 {a.grad + row * a.outer, a.outer, 1}, a.weight, a.inner, a.grad_x + row * a.inner,
                 a.inner);
}

// Rows [row, row + kGradRows) of grad_weight and grad_bias. The sum over M goes in blocks of rows
// of x, which stay in the cache while all of these rows take them.
void grad_weight_rows(const Args& a, int64_t row) {
  const int64_t rows = std::min(kGradRows, a.outer - row);
  const float one = 1;
  for (int64_t m = 0; m < a.rows; m += kRowBlock) {
    const int64_t count = std::min(kRowBlock, a.rows - m);
    const float* grad = a.grad + m * a.outer + row;
    if (a.grad_weight != nullptr) {
      gemm::multiply(rows, a.inner, count, {grad, 1, a.outer}, a.x + m * a.inner, a.inner,
                     a.grad_weight + row * a.inner, a.inner, m > 0);
    }
    if (a.grad_bias != nullptr) {
      gemm::multiply(1, rows, count, {&one, 0, 0}, grad, a.outer, a.grad_bias + row, a.outer,
                     m > 0);
    }
  }
}

void backward(const Args& a, int64_t task) {
  if (task < a.x_tasks) {
    grad_x_rows(a, task * kGradRows);
  } else {
    grad_weight_rows(a, (task - a.x_tasks) * kGradRows);
  }
}

bool ours(const at::Tensor& x, const at::Tensor& weight) {
  return x.scalar_type() == at::kFloat && x.numel() >= kFewestRows * x.size(-1) && x.numel() > 0 &&
         weight.size(0) % gemm::kWhole == 0 && weight.size(1) % gemm::kWhole == 0;
}

Args arguments(const at::Tensor& x, const at::Tensor& weight) {
  Args args{};
  args.x = x.const_data_ptr<float>();
  args.weight = weight.const_data_ptr<float>();
  args.outer = weight.size(0);
  args.inner = weight.size(1);
  args.rows = x.numel() / args.inner;
  return args;
}

// Small products stay on this thread.
int64_t grain(const Args& args, int64_t tasks) {
  return args.rows * args.inner * args.outer < kWorth ? tasks : 1;
}

at::Tensor linear_cpu(const LinearInputs& in) {
  if (!ours(in.x, in.weight)) return composite::linear(in);
  linear_op::check(in);
  const at::Tensor x = in.x.contiguous(), weight = in.weight.contiguous();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  at::Tensor y = at::empty(sizes, x.options());
  Args args = arguments(x, weight);
  args.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  args.y = y.mutable_data_ptr<float>();
  const int64_t tasks = blocks(args.rows, kRowBlock) * blocks(args.outer, gemm::kPanel);
  at::parallel_for(0, tasks, grain(args, tasks), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) forward(args, task);
  });
  return y;
}

LinearGradients linear_backward_cpu(const LinearBackwardInputs& in) {
  if (!ours(in.x, in.weight)) {
    return composite::linear_backward(in);
  }
  linear_op::check_backward(in);
  const at::Tensor grad = in.grad.contiguous(), x = in.x.contiguous(),
                   weight = in.weight.contiguous();
  const auto result = [&](bool needed, at::IntArrayRef sizes) {
    return at::empty(needed ? sizes : at::IntArrayRef{0}, x.options());
  };
  at::Tensor grad_x = result(in.need_x, x.sizes()),
             grad_weight = result(in.need_weight, weight.sizes()),
             grad_bias = result(in.need_bias, weight.sizes().slice(0, 1));
  Args args = arguments(x, weight);
  args.grad = grad.const_data_ptr<float>();
  args.grad_x = grad_x.mutable_data_ptr<float>();
  args.grad_weight = in.need_weight ? grad_weight.mutable_data_ptr<float>() : nullptr;
  args.grad_bias = in.need_bias ? grad_bias.mutable_data_ptr<float>() : nullptr;
  args.x_tasks = in.need_x ? blocks(args.rows, kGradRows) : 0;
  const int64_t weight_tasks = in.need_weight || in.need_bias ? blocks(args.outer, kGradRows) : 0;
  const int64_t tasks = args.x_tasks + weight_tasks;
  at::parallel_for(0, tasks, grain(args, tasks), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) backward(args, task);
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, linear).cpu<linear_cpu>();
  forms(m, linear_backward).cpu<linear_backward_cpu>();
}

}  // namespace refract
