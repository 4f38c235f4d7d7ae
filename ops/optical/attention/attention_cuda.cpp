// optical_attention on CUDA tensors: checks, memory and launches. What the kernels don't do goes to
// the composite form: other types than bf16 and fp16, other head widths, quantiles, noise of the
// call, and queries that start at an odd token (a Philox patch would be cut). Compute
// capability 9.0 has kernels of its own.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/image/kernel_image.h"
#include "ops/common/launch.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/attention/attention_kernel.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract {
namespace {

bool has_kernel(const at::Tensor& q, const at::Tensor& k, const OpticalAttentionSettings& s) {
  const int64_t width = q.size(3);
  return (q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf) &&
         (width == 32 || width == 64 || width == 128) && s.quantiles.empty() &&
         !s.call_noise.has_value() && s.levels <= optical::kMaxExactLevels &&
         (k.size(1) - q.size(1)) % 2 == 0 && q.numel() > 0;
}

// The kernels for compute capability 9.0.
bool has_hopper_kernel(const at::Tensor& q, const OpticalAttentionSettings& s) {
  return attention_op::has_hopper_shape(q, s) && has_hopper_image();
}
// What those kernels may keep of a layer's scores at a time: a byte each in the forward pass, which
// else computes them twice, and dS in the backward pass, which goes through the batch in parts.
constexpr int64_t kKept = int64_t{256} << 20;

// The groups of heads of a part: as many as fit, the parts alike. None where so few fit that their
// blocks wouldn't fill the device; then the kernels that keep nothing are faster.
int64_t groups_at_once(const OpticalAttentionArgs& a, int64_t group_bytes) {
  const int64_t groups = int64_t{a.batch} * a.kv_heads;
  const int64_t parts = (groups * group_bytes + kKept - 1) / kKept;
  const int64_t some = (groups + parts - 1) / parts;
  const int64_t blocks = some * (a.heads / a.kv_heads) * ((a.keys + 63) / 64);
  return some * group_bytes <= kKept && (parts == 1 || blocks >= 6 * multiprocessors()) ? some : 0;
}

// Rows must start at 16 bytes and be contiguous.
at::Tensor readable(const at::Tensor& x) {
  const bool aligned = reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0 &&
                       x.stride(3) == 1 && x.stride(0) % 8 == 0 && x.stride(1) % 8 == 0 &&
                       x.stride(2) % 8 == 0;
  return aligned ? x : x.contiguous();
}
AttentionTensor tensor_of(const at::Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

// The arguments of all launches of a call, and the memory that they point to.
struct Call {
  at::Tensor q, k, v, clock, codes[3], terms, tiles[3];
  OpticalAttentionArgs args{};

  Call(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& v_in,
       const OpticalAttentionSettings& s)
      : q(readable(q_in)),
        k(readable(k_in)),
        v(readable(v_in)),
        clock(attention_op::clock_of(s, q_in).contiguous()) {
    const int64_t batch = q.size(0), queries = q.size(1), heads = q.size(2), width = q.size(3);
    const int64_t keys = k.size(1), kv_heads = k.size(2);
    args.batch = static_cast<int>(batch);
    args.heads = static_cast<int>(heads);
    args.kv_heads = static_cast<int>(kv_heads);
    args.queries = static_cast<int>(queries);
    args.keys = static_cast<int>(keys);
    args.head_dim = static_cast<int>(width);
    args.scale = static_cast<float>(s.scale);
    args.levels = static_cast<int>(s.levels);
    args.lut_min = static_cast<float>(s.lut_min);
    args.one_noise = !s.noise || s.shared_noise.has_value();
    args.shared_noise = static_cast<float>(s.shared_noise.value_or(0.0));
    const auto key = [&](size_t i) {
      return philox_key(static_cast<uint64_t>(s.seed),
                        i < s.streams.size() ? static_cast<uint64_t>(s.streams[i]) : 0);
    };
    PhiloxKey round = key(0);
    for (auto& round_key : args.score_keys) {
      round_key[0] = round.lo;
      round_key[1] = round.hi;
      round.lo += 0x9E3779B9u;
      round.hi += 0xBB67AE85u;
    }
    args.output_key = key(1);
    args.noise_mask = args.one_noise ? 0 : 0x007fff80;
    args.noise_bits =
        std::bit_cast<uint32_t>(args.one_noise ? 1.5f + args.shared_noise : 1.0f + 0x1p-17f);
    args.noise_low = args.one_noise ? 0x7654 : 0x7610;
    args.noise_high = args.one_noise ? 0x7654 : 0x7632;
    args.noise_base = 0x4B000000u;
    if (args.one_noise) {
      const double shared = (static_cast<double>(args.shared_noise) + 0.5) * 65536.0;
      args.noise_base |= static_cast<uint32_t>(std::clamp(std::round(shared), 0.0, 65535.0));
    }
    args.clock = clock.const_data_ptr<int64_t>();
    args.q = tensor_of(q);
    args.k = tensor_of(k);
    args.v = tensor_of(v);
    args.seen_score_scale = s.scaled_score_range ? static_cast<float>(s.scale) : 1.0f;
  }

  // Memory of the codes.
  void allocate(bool with_v) {
    const OpticalAttentionArgs& a = args;
    const auto half = q.options().dtype(at::kHalf);
    const int64_t q_rows = int64_t{a.batch} * a.heads * a.queries;
    const int64_t k_rows = int64_t{a.batch} * a.kv_heads * a.keys;
    codes[0] = at::empty({q_rows, a.head_dim}, half);
    codes[1] = at::empty({k_rows, a.head_dim}, half);
    if (with_v) codes[2] = at::empty_like(codes[1]);
    terms = at::empty({q_rows + k_rows}, q.options().dtype(at::kFloat));
    args.q_code = codes[0].mutable_data_ptr();
    args.k_code = codes[1].mutable_data_ptr();
    args.v_code = with_v ? codes[2].mutable_data_ptr() : nullptr;
    args.q_term = terms.mutable_data_ptr<float>();
    args.k_term = args.q_term + q_rows;
  }
  // Memory of the tiles for compute capability 9.0.
  void allocate_tiles(const AttentionTileBytes& bytes) {
    const auto byte = q.options().dtype(at::kByte);
    tiles[0] = at::empty({bytes.queries}, byte);
    tiles[1] = at::empty({bytes.keys}, byte);
    args.q_tiles = tiles[0].mutable_data_ptr();
    args.k_tiles = tiles[1].mutable_data_ptr();
    if (bytes.levels == 0 || bytes.levels > kKept) return;
    tiles[2] = at::empty({bytes.levels}, byte);
    args.kept_levels = tiles[2].mutable_data_ptr();
  }
};

OpticalAttentionResult forward_cuda(const OpticalAttentionForwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &v = in.v;
  const OpticalAttentionSettings& s = in.settings;
  attention_op::check(in);
  if (!has_kernel(q, k, s)) {
    return composite::optical_attention_forward(in);
  }
  const at::Tensor mean = attention_op::mean_like(q, in.with_mean);
  const char* op = "optical_attention";
  const c10::cuda::CUDAGuard guard(q.device());
  const cudaStream_t stream = current_stream();
  const Dtype dtype = cuda_dtype(q.scalar_type());
  Call call(q, k, v, s);
  OpticalAttentionArgs& a = call.args;
  at::Tensor out = at::empty(q.sizes(), q.options().memory_format(at::MemoryFormat::Contiguous));
  at::Tensor normalizer =
      at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
  at::Tensor used = at::empty_like(in.ranges);
  const at::Tensor seen = at::empty({attention_op::kRoles, 2}, q.options().dtype(at::kInt));
  a.seen = reinterpret_cast<uint32_t*>(seen.mutable_data_ptr<int32_t>());
  a.ranges = in.ranges.const_data_ptr<float>();
  a.out = out.mutable_data_ptr();
  a.normalizer = normalizer.mutable_data_ptr<float>();
  check_launch(op, launch_attention_reset(a, stream));
  const bool hopper = has_hopper_kernel(q, s);
  if (!hopper || !s.ranges_set) {
    call.allocate(true);
    check_launch(
        op, launch_attention_operands(a, dtype, true, s.ranges_set, multiprocessors(), stream));
    check_launch(op, launch_attention_forward(a, dtype, s.ranges_set, !hopper, stream));
  }
  if (hopper) {
    call.allocate_tiles(attention_tile_bytes(a, false));
    if (in.with_mean) a.mean = mean.mutable_data_ptr();
    check_launch(op,
                 launch_attention_operands_hopper(a, nullptr, dtype, multiprocessors(), stream));
    check_launch(op, launch_attention_forward_hopper(a, dtype, stream));
  }
  check_launch(op, launch_attention_finish(a, used.mutable_data_ptr<float>(),
                                           s.train ? in.ranges.mutable_data_ptr<float>() : nullptr,
                                           static_cast<float>(s.smooth), s.clipped_ranges, stream));
  return {out, normalizer, used, mean};
}

OpticalAttentionGradients backward_cuda(const OpticalAttentionBackwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &v = in.v;
  const OpticalAttentionSettings& s = in.settings;
  if (!has_kernel(q, k, s)) {
    return composite::optical_attention_backward(in);
  }
  const char* op = "optical_attention_backward";
  const c10::cuda::CUDAGuard guard(q.device());
  const cudaStream_t stream = current_stream();
  const Dtype dtype = cuda_dtype(q.scalar_type());
  Call call(q, k, v, s);
  OpticalAttentionArgs& a = call.args;
  const at::Tensor grad = readable(in.grad_out), output = in.out.contiguous();
  const at::Tensor mean = in.mean.contiguous();
  at::Tensor delta = at::empty_like(in.normalizer);
  const auto like = [](const at::Tensor& x) {
    return at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
  };
  at::Tensor grad_q = like(q), grad_k = like(k), grad_v = like(v);
  const at::Tensor norm = in.normalizer.contiguous();
  a.ranges = in.used.const_data_ptr<float>();
  a.normalizer = const_cast<float*>(norm.const_data_ptr<float>());
  OpticalAttentionGradArgs g{};
  g.grad_out = tensor_of(grad);
  g.out = output.const_data_ptr();
  g.delta = delta.mutable_data_ptr<float>();
  g.grad_q = grad_q.mutable_data_ptr();
  g.grad_k = grad_k.mutable_data_ptr();
  g.grad_v = grad_v.mutable_data_ptr();
  const AttentionTileBytes bytes = attention_tile_bytes(a, true);
  const int64_t groups =
      has_hopper_kernel(q, s) && mean.numel() > 0 ? groups_at_once(a, bytes.scratch) : 0;
  if (groups == 0) {
    call.allocate(false);
    check_launch(op, launch_attention_operands(a, dtype, false, true, multiprocessors(), stream));
    check_launch(op, launch_attention_backward(a, g, dtype, stream));
    return {grad_q, grad_k, grad_v};
  }
  call.allocate_tiles(bytes);
  const at::Tensor scratch = at::empty({groups * bytes.scratch}, q.options().dtype(at::kByte));
  g.mean = mean.const_data_ptr();
  g.scratch = scratch.mutable_data_ptr();
  check_launch(op, launch_attention_operands_hopper(a, &g, dtype, multiprocessors(), stream));
  check_launch(op, launch_attention_backward_hopper(a, g, static_cast<int>(groups), dtype, stream));
  return {grad_q, grad_k, grad_v};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_attention_forward).cuda<forward_cuda>();
  forms(m, optical_attention_backward).cuda<backward_cuda>();
}

}  // namespace refract
