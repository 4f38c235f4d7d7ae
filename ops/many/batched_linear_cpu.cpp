// CPU kernel of batched_linear in fp32; other types, few rows and ragged widths are the composite
// form. A task is a block of rows and a panel of columns of one model's product.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "ops/common/define.h"
#include "ops/common/gemm_cpu.h"
#include "ops/dense/activation/activation.h"
#include "ops/many/batched_linear.h"

namespace refract {
namespace {

constexpr int64_t kRowBlock = 256;   // rows that a panel of the weight is transposed for
constexpr int64_t kFewestRows = 32;  // below this the weight is hardly read more than once

bool ours(const at::Tensor& x, const at::Tensor& weight) {
  return x.scalar_type() == at::kFloat && x.size(1) >= kFewestRows && x.numel() > 0 &&
         weight.size(1) % gemm::kWhole == 0 && weight.size(2) % gemm::kWhole == 0;
}

at::Tensor batched_linear_cpu(const BatchedLinearInputs& in) {
  batched_linear_op::check(in);
  if (!ours(in.x, in.weight)) return composite::batched_linear(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor x = in.x.contiguous(), weight = in.weight.contiguous();
  const at::Tensor bias = in.bias ? in.bias->contiguous() : at::Tensor();
  const int64_t A = x.size(0), N = x.size(1), K = x.size(2), O = weight.size(1);
  at::Tensor y = at::empty({A, N, O}, x.options());
  const float *from = x.const_data_ptr<float>(), *by = weight.const_data_ptr<float>();
  const float* add = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  float* to = y.mutable_data_ptr<float>();
  const int64_t row_blocks = (N + kRowBlock - 1) / kRowBlock,
                panels = (O + gemm::kPanel - 1) / gemm::kPanel;
  at::parallel_for(0, A * row_blocks * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t model = task / (row_blocks * panels), column = task % panels * gemm::kPanel,
                    row = task / panels % row_blocks * kRowBlock;
      gemm::multiply_transposed(std::min(kRowBlock, N - row), std::min(gemm::kPanel, O - column), K,
                                {from + (model * N + row) * K, K, 1}, by + (model * O + column) * K,
                                K, to + (model * N + row) * O + column, O,
                                add != nullptr ? add + model * O + column : nullptr);
    }
  });
  return in.gelu ? bias_gelu(y, std::nullopt, /*tanh_form=*/true) : y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, batched_linear).cpu<batched_linear_cpu>(); }

}  // namespace refract
