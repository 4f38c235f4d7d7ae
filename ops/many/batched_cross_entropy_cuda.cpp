#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/loss/cross_entropy_kernel.h"
#include "ops/many/batched_cross_entropy.h"
#include "ops/many/batched_cross_entropy_kernel.h"

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

// Per row, [A, N].
struct Rows {
  at::Tensor loss, correct;
};

bool fused(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
           int64_t num_classes, bool split, const Rows& rows) {
  if (x.scalar_type() != at::kBFloat16 && x.scalar_type() != at::kHalf) return false;
  const BatchedHead head{cuda_dtype(x.scalar_type()),
                         split,
                         x.const_data_ptr(),
                         weight.const_data_ptr(),
                         x.size(0),
                         x.size(1),
                         x.size(2) / (split ? 3 : 1),
                         weight.size(1),
                         x.size(0) == 1 ? weight.size(1) * weight.size(2) : weight.stride(0),
                         num_classes,
                         targets.const_data_ptr(),
                         targets.scalar_type() == at::kLong,
                         rows.loss.mutable_data_ptr<float>(),
                         rows.correct.mutable_data_ptr<int32_t>()};
  if (!can_fuse_batched_head(head)) return false;
  check_launch("batched_linear_cross_entropy", launch_batched_head(head, current_stream()));
  return true;
}

// Some of the models and some of their rows at a time, their logits by a product.
void by_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
               int64_t num_classes, bool split, const Rows& rows) {
  const int64_t models = x.size(0), n = x.size(1), padded = weight.size(1);
  const int64_t stride = (padded + 7) / 8 * 8;  // rows of logits start at 16-byte boundaries
  const auto options = split ? x.options().dtype(at::kFloat) : x.options();
  const Cut cut = cut_for(models, n, stride * static_cast<int64_t>(options.dtype().itemsize()));
  const at::Tensor buffer = at::empty({cut.models * cut.rows * stride}, options);
  const at::Tensor row_loss = at::empty({cut.models * cut.rows}, rows.loss.options());
  const at::Tensor row_correct = at::empty({cut.models * cut.rows}, rows.correct.options());
  for (int64_t a = 0; a < models; a += cut.models) {
    const int64_t group = std::min(cut.models, models - a);
    for (int64_t begin = 0; begin < n; begin += cut.rows) {
      const int64_t count = std::min(cut.rows, n - begin), all = group * count;
      at::Tensor logits =
          buffer.narrow(0, 0, all * stride).view({group, count, stride}).narrow(2, 0, padded);
      const at::Tensor from = x.narrow(0, a, group).narrow(1, begin, count);
      const at::Tensor by = weight.narrow(0, a, group).transpose(1, 2);
      if (split) {
        at::bmm_out(logits, from, by, at::kFloat);
      } else {
        at::bmm_out(logits, from, by);
      }
      const at::Tensor target =
          targets.narrow(0, begin, count).unsqueeze(0).expand({group, count}).contiguous();
      check_launch(
          "batched_linear_cross_entropy",
          launch_cross_entropy_rows(
              {cuda_dtype(buffer.scalar_type()), buffer.data_ptr(), stride, all, num_classes,
               target.const_data_ptr(), target.scalar_type() == at::kLong, false,
               row_loss.mutable_data_ptr<float>(), row_correct.mutable_data_ptr<int32_t>()},
              current_stream()));
      const auto put = [&](const at::Tensor& to, const at::Tensor& flat) {
        to.narrow(0, a, group)
            .narrow(1, begin, count)
            .copy_(flat.narrow(0, 0, all).view({group, count}));
      };
      put(rows.loss, row_loss);
      put(rows.correct, row_correct);
    }
  }
}

BatchedCrossEntropy forward_cuda(const BatchedCrossEntropyInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::batched_linear_cross_entropy(in);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_cross_entropy::check(in);
  const c10::cuda::CUDAGuard device(in.x.device());
  const at::Tensor x = in.x.contiguous(), targets = in.targets.contiguous();
  const bool dense =
      in.weight.stride(2) == 1 && (in.weight.size(1) <= 1 || in.weight.stride(1) == x.size(2));
  const at::Tensor weight = dense ? in.weight : in.weight.contiguous();
  const Rows rows{at::empty({x.size(0), x.size(1)}, x.options().dtype(at::kFloat)),
                  at::empty({x.size(0), x.size(1)}, x.options().dtype(at::kInt))};
  if (!fused(x, weight, targets, in.num_classes, in.split, rows))
    by_logits(x, weight, targets, in.num_classes, in.split, rows);
  return {rows.loss.sum(1, false, at::kDouble), rows.correct.sum(1, false, at::kLong)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, batched_linear_cross_entropy).cuda<forward_cuda>(); }

}  // namespace refract
