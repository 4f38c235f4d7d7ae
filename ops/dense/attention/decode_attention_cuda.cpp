// decode_attention on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>

#include <limits>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/decode_attention.h"
#include "ops/dense/attention/decode_attention_kernel.h"

namespace refract {
namespace {

bool side_by_side(const at::Tensor& t) { return t.stride(-1) == 1 && t.stride(-2) == t.size(-1); }

bool aligned(const at::Tensor& t) {
  const auto vector = static_cast<int64_t>(16 / t.element_size());
  bool whole = reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) whole = whole && t.stride(i) % vector == 0;
  return whole;
}

at::Tensor decode_attention_cuda(const DecodeAttentionInputs& in) {
  decode_attention_op::check(in);
  const bool known = has_cuda_dtype(in.q.scalar_type()) &&
                     decode_attention_fits(in.q.size(2), cuda_dtype(in.q.scalar_type()));
  const at::Tensor q = side_by_side(in.q) && aligned(in.q) ? in.q : in.q.contiguous();
  if (!known || !side_by_side(in.keys) || in.keys.strides() != in.values.strides() ||
      !aligned(in.keys) || !aligned(in.values) || !aligned(q)) {
    return composite::decode_attention(in);
  }
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor lengths = in.lengths.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options());
  if (out.numel() == 0) return out;
  TORCH_CHECK(q.size(0) * in.keys.size(1) <= std::numeric_limits<int32_t>::max(),
              "refract::decode_attention: expected at most 2^31 key heads in all");
  DecodeAttentionArgs a{};
  a.q = q.const_data_ptr();
  a.keys = in.keys.const_data_ptr();
  a.values = in.values.const_data_ptr();
  a.lengths = lengths.const_data_ptr<int64_t>();
  a.out = out.mutable_data_ptr();
  a.q_stride = q.stride(0);
  a.batch_stride = in.keys.stride(0);
  a.head_stride = in.keys.stride(1);
  a.batch = static_cast<int>(q.size(0));
  a.heads = static_cast<int>(q.size(1));
  a.key_heads = static_cast<int>(in.keys.size(1));
  a.places = static_cast<int>(in.keys.size(2));
  a.head_dim = static_cast<int>(q.size(2));
  a.scale = static_cast<float>(in.scale);
  check_launch("decode_attention", launch_decode_attention(a, cuda_dtype(q.scalar_type()),
                                                           multiprocessors(), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, decode_attention).cuda<decode_attention_cuda>(); }

}  // namespace refract
