#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include "ops/common/check.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/fused/batched_cross_entropy.h"
#include "ops/fused/cross_entropy_kernel.h"

namespace refract {
namespace {

constexpr int64_t kCacheBytes = int64_t{24} << 20;   // logits that are read back from the L2 cache
constexpr int64_t kChunkBytes = int64_t{512} << 20;  // where they can't
constexpr int64_t kLeastRows = 1024;                 // per model, so that the GEMM's tiles are full

struct Cut {
  int64_t models, rows;  // whose logits exist at once
};

Cut cut_for(int64_t models, int64_t rows, int64_t row_bytes) {
  const int64_t in_cache = kCacheBytes / (models * row_bytes);
  if (in_cache >= std::min(rows, kLeastRows)) return {models, std::min(rows, in_cache)};
  const int64_t least = std::min(rows, kLeastRows);
  const int64_t fit = std::clamp<int64_t>(kChunkBytes / (least * row_bytes), 1, models);
  return {fit, std::clamp<int64_t>(kChunkBytes / (fit * row_bytes), 1, rows)};
}

std::tuple<at::Tensor, at::Tensor> forward_cuda(const at::Tensor& x, const at::Tensor& weight,
                                                const at::Tensor& targets, int64_t num_classes,
                                                bool wide_logits) {
  if (!has_cuda_dtype(x.scalar_type())) {
    return composite::batched_linear_cross_entropy(x, weight, targets, num_classes, wide_logits);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_cross_entropy::check(x, weight, targets, num_classes);
  const c10::cuda::CUDAGuard device(x.device());
  const int64_t models = x.size(0), n = x.size(1), padded = weight.size(1);
  const int64_t stride = (padded + 7) / 8 * 8;  // rows of logits start at 16-byte boundaries
  const auto fp32 = x.options().dtype(at::kFloat);
  const bool wide = wide_logits && x.scalar_type() != at::kFloat;
  const auto logits_options = wide ? fp32 : x.options();
  const Cut cut =
      cut_for(models, n, stride * static_cast<int64_t>(logits_options.dtype().itemsize()));
  const at::Tensor buffer = at::empty({cut.models * cut.rows * stride}, logits_options);
  const at::Tensor row_loss = at::empty({models * n}, fp32);
  const at::Tensor row_correct = at::empty({models * n}, fp32.dtype(at::kInt));
  int64_t done = 0;  // rows of the flat results; a chunk's lie together, in the chunk's order
  at::Tensor loss = at::empty({models}, fp32.dtype(at::kDouble)).zero_();
  at::Tensor correct = at::empty({models}, fp32.dtype(at::kLong)).zero_();
  for (int64_t a = 0; a < models; a += cut.models) {
    const int64_t group = std::min(cut.models, models - a);
    for (int64_t begin = 0; begin < n; begin += cut.rows) {
      const int64_t rows = std::min(cut.rows, n - begin);
      at::Tensor logits = buffer.narrow(0, 0, group * rows * stride)
                              .view({group, rows, stride})
                              .narrow(2, 0, padded);
      const at::Tensor from = x.narrow(0, a, group).narrow(1, begin, rows);
      const at::Tensor by = weight.narrow(0, a, group).transpose(1, 2);
      if (wide) {
        at::bmm_out(logits, from, by, at::kFloat);
      } else {
        at::bmm_out(logits, from, by);
      }
      const at::Tensor target =
          targets.narrow(0, begin, rows).unsqueeze(0).expand({group, rows}).contiguous();
      check_launch("batched_linear_cross_entropy",
                   launch_cross_entropy_rows(
                       {cuda_dtype(buffer.scalar_type()), buffer.data_ptr(), stride, group * rows,
                        num_classes, target.const_data_ptr(), target.scalar_type() == at::kLong,
                        false, row_loss.mutable_data_ptr<float>() + done,
                        row_correct.mutable_data_ptr<int32_t>() + done},
                       current_stream()));
      const auto of_chunk = [&](const at::Tensor& flat) {
        return flat.narrow(0, done, group * rows).view({group, rows});
      };
      loss.narrow(0, a, group).add_(of_chunk(row_loss).sum(1, false, at::kDouble));
      correct.narrow(0, a, group).add_(of_chunk(row_correct).sum(1, false, at::kLong));
      done += group * rows;
    }
  }
  return {loss, correct};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("batched_linear_cross_entropy", &forward_cuda); }

}  // namespace refract
