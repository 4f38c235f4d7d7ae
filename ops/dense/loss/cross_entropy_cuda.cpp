#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/dense/loss/cross_entropy_kernel.h"

namespace refract {
namespace {

// dweight (fp32) += dlogits^T x, the sum kept in fp32 by the GEMM itself.
void add_dweight(at::Tensor& dweight, const at::Tensor& dlogits, const at::Tensor& x, bool first) {
  const at::Tensor transposed = dlogits.t();
  if (x.scalar_type() == at::kFloat) {
    if (first) {
      at::mm_out(dweight, transposed, x);
    } else {
      at::addmm_out(dweight, dweight, transposed, x);
    }
  } else if (first) {
    at::mm_out(dweight, transposed, x, at::kFloat);
  } else {
    at::addmm_out(dweight, dweight, transposed, x, at::kFloat);
  }
}

CrossEntropyForward forward_cuda(const CrossEntropyForwardInputs& in) {
  if (!has_cuda_dtype(in.x.scalar_type())) {
    return composite::linear_cross_entropy_forward(in);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.x.device());
  const auto [x, weight, targets] =
      cross_entropy::flatten(in.x, in.weight, in.targets, in.num_classes);
  const auto fp32 = x.options().dtype(at::kFloat);
  const int64_t n = x.size(0), padded = weight.size(0);
  const int64_t stride = (padded + 7) / 8 * 8;  // rows of logits start at 16-byte boundaries
  const int64_t chunk_rows =
      in.chunk_rows > 0
          ? in.chunk_rows
          : cross_entropy::chunk_rows(n, stride * x.element_size(), cross_entropy::kChunkBytes);
  const at::Tensor buffer = at::empty({std::min(n, chunk_rows), stride}, x.options());
  const at::Tensor row_loss = at::empty({n}, fp32);
  const at::Tensor row_correct = at::empty({n}, fp32.dtype(at::kInt));
  at::Tensor dx = in.need_dx ? at::empty_like(x) : at::empty({0}, x.options());
  at::Tensor dweight = at::empty({0}, fp32);
  if (in.need_dweight)
    dweight = n ? at::empty(weight.sizes(), fp32) : at::zeros(weight.sizes(), fp32);
  const bool gradient = in.need_dx || in.need_dweight;
  for (int64_t begin = 0; begin < n; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, n - begin);
    at::Tensor logits = buffer.narrow(0, 0, rows).narrow(1, 0, padded);
    const at::Tensor xc = x.narrow(0, begin, rows);
    const at::Tensor target = targets.narrow(0, begin, rows);
    at::mm_out(logits, xc, weight.t());
    check_launch("linear_cross_entropy",
                 launch_cross_entropy_rows(
                     {cuda_dtype(x.scalar_type()), buffer.data_ptr(), stride, rows, in.num_classes,
                      target.const_data_ptr(), target.scalar_type() == at::kLong, gradient,
                      row_loss.mutable_data_ptr<float>() + begin,
                      row_correct.mutable_data_ptr<int32_t>() + begin},
                     current_stream()));
    if (in.need_dx) {
      at::Tensor out = dx.narrow(0, begin, rows);
      at::mm_out(out, logits, weight);
    }
    if (in.need_dweight) add_dweight(dweight, logits, xc, begin == 0);
  }
  const at::Tensor loss = at::empty({}, fp32);
  const at::Tensor correct = at::empty({}, fp32.dtype(at::kLong));
  check_launch("linear_cross_entropy",
               launch_cross_entropy_sum(row_loss.const_data_ptr<float>(),
                                        row_correct.const_data_ptr<int32_t>(), n,
                                        loss.mutable_data_ptr<float>(),
                                        correct.mutable_data_ptr<int64_t>(), current_stream()));
  return {loss, correct, in.need_dx ? dx.view(in.x.sizes()) : dx, dweight};
}

at::Tensor scale_cast_cuda(const ScaleCastInputs& in) {
  check_floating("scale_cast", "x", in.x);
  TORCH_CHECK(in.scale.numel() == 1 && in.scale.is_cuda(),
              "refract::scale_cast: expected scale to be one element on ", in.x.device(), ", got ",
              in.scale.sizes(), " on ", in.scale.device());
  if (!has_cuda_dtype(in.x.scalar_type()) || !has_cuda_dtype(in.dtype)) {
    return composite::scale_cast(in);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.x.device());
  const at::Tensor x = in.x.contiguous();
  const at::Tensor s = in.scale.to(at::kFloat);
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(in.dtype));
  check_launch("scale_cast",
               launch_scale_cast(cuda_dtype(x.scalar_type()), x.const_data_ptr(),
                                 cuda_dtype(in.dtype), out.mutable_data_ptr(), x.numel(),
                                 s.const_data_ptr<float>(), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, linear_cross_entropy_forward).cuda<forward_cuda>();
  forms(m, scale_cast).cuda<scale_cast_cuda>();
}

}  // namespace refract
