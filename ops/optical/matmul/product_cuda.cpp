// The optical products on CUDA tensors: operands become fp16 codes, the tensor cores multiply them
// with fp32 accumulation, and one pass over the result does the rest. On Hopper a linear layer's
// product and that pass are one kernel, which keeps the product in registers.
//
// Else the product of codes is kept in fp16 for half types, in fp32 for fp32. Codes are at most 1,
// so that a sum over K < 65504 fits fp16; its rounding is 2^-12 of the value, at most 1/16 of a
// level of the output's range for 256 levels, 1/32 where that range is symmetric.
#include <ATen/Context.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/optical/linear/linear.h"
#include "ops/optical/linear/linear_kernel.h"
#include "ops/optical/matmul/matmul.h"

namespace refract {
namespace {

static_assert(kOpticalParts == optical_op::kEncodeParts);
static_assert(kOpticalMembers == optical_op::kMaxMembers);

constexpr int64_t kMaxHalfSum = 65504;

// While it lives, cuBLAS may not add partial fp16 sums in fp16.
class FullAccumulation {
 public:
  FullAccumulation() : before_(at::globalContext().allowFP16ReductionCuBLAS()) {
    if (reduced()) at::globalContext().setAllowFP16ReductionCuBLAS(false);
  }
  ~FullAccumulation() {
    if (reduced()) at::globalContext().setAllowFP16ReductionCuBLAS(true);
  }
  FullAccumulation(const FullAccumulation&) = delete;
  FullAccumulation& operator=(const FullAccumulation&) = delete;

 private:
  bool reduced() const {
    return before_ == at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK;
  }
  at::CuBLASReductionOption before_;
};

OpticalMembers members_of(at::TensorList ranges, at::IntArrayRef splits) {
  OpticalMembers m{};
  m.count = static_cast<int>(splits.size());
  for (size_t i = 0; i < splits.size(); ++i) {
    m.begin[i + 1] = m.begin[i] + splits[i];
    m.range[i] = ranges[i].mutable_data_ptr<float>();
  }
  return m;
}

OpticalOperand encode_cuda(const OpticalEncodeInputs& in, double lut_min, unsigned* ticket) {
  const char* op = "optical_encode";
  optical_op::check_encode(in);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor x = in.x.contiguous();
  const auto options = x.options().dtype(at::kFloat);
  const auto members = static_cast<int64_t>(in.splits.size());
  OpticalEncodeArgs a{};
  a.members = members_of(in.ranges, in.splits);
  OpticalOperand o{at::empty(x.sizes(), options.dtype(at::kHalf)),
                   at::empty({a.members.begin[members]}, options), at::empty({members, 2}, options),
                   at::empty({members, kOpticalParts, 2}, options)};
  const Dtype dtype = cuda_dtype(x.scalar_type());
  at::Tensor unset;
  if (!in.settings.ranges_set) {
    unset = at::empty_like(o.seen);
    OpticalSeenArgs seen{x.const_data_ptr(), a.members, x.size(-1), true,
                         unset.mutable_data_ptr<float>()};
    check_launch(op, launch_optical_seen(seen, dtype, current_stream()));
    a.unset = unset.const_data_ptr<float>();
  }
  a.x = x.const_data_ptr();
  a.codes = o.codes.mutable_data_ptr();
  a.sums = o.sums.mutable_data_ptr<float>();
  a.used = o.used.mutable_data_ptr<float>();
  a.seen = o.seen.mutable_data_ptr<float>();
  a.width = x.size(-1);
  a.levels = static_cast<int>(in.settings.levels);
  a.lut_min = static_cast<float>(lut_min);
  a.ticket = ticket;
  check_launch(op, launch_optical_encode(a, dtype, current_stream()));
  return o;
}

OpticalOperand encode_form(const OpticalEncodeInputs& in) {
  if (!optical_op::has_kernel(in.x, in.settings)) return composite::optical_encode(in);
  return encode_cuda(in, in.settings.lut_min, nullptr);
}

// What of the output's arguments comes from the settings; `clock` is kept by the caller.
void set_output(OpticalOutputArgs& a, const OpticalSettings& s, const at::Tensor& y,
                const at::Tensor& clock) {
  a.y = y.mutable_data_ptr();
  a.levels = static_cast<int>(s.levels);
  a.lut_min = static_cast<float>(s.lut_min);
  a.smooth = static_cast<float>(s.smooth);
  a.draws = s.noise && !s.shared_noise.has_value();
  a.shared = static_cast<float>(s.shared_noise.value_or(0));
  a.train = s.train;
  a.clipped = s.clipped_ranges;
  for (size_t m = 0; m < s.streams.size() && m < kOpticalMembers; ++m) {
    a.key[m] = philox_key(static_cast<uint64_t>(s.seed), static_cast<uint64_t>(s.streams[m]));
  }
  a.clock = clock.defined() ? clock.const_data_ptr<int64_t>() : nullptr;
}
at::Tensor clock_of(const OpticalSettings& s) {
  return s.clock.has_value() ? s.clock->contiguous() : at::Tensor();
}

// The output's pass over a product; all else of `a` is set.
void run_output(const char* op, OpticalOutputArgs a, const at::Tensor& product, const at::Tensor& y,
                const OpticalSettings& s) {
  a.product = product.const_data_ptr();
  const Dtype dtype = cuda_dtype(y.scalar_type());
  const int chip = multiprocessors();
  const int64_t parts = optical_output_parts(a, chip);
  const auto options = y.options().dtype(at::kFloat);
  at::Tensor unset, seen;
  if (!s.ranges_set) {
    unset = at::empty({parts}, options);
    check_launch(op, launch_optical_output_seen(a, unset.mutable_data_ptr<float>(), dtype, chip,
                                                current_stream()));
  }
  if (s.train) seen = at::empty({parts}, options);
  check_launch(
      op, launch_optical_output(a, unset.defined() ? unset.const_data_ptr<float>() : nullptr,
                                seen.defined() ? seen.mutable_data_ptr<float>() : nullptr, dtype,
                                chip, current_stream()));
}

// Product and output as one kernel, where there is one.
bool run_fused(const char* op, const OpticalOutputArgs& a, const at::Tensor& x_codes,
               const at::Tensor& w_codes, const at::Tensor& y, const OpticalSettings& s) {
  const OpticalLinearArgs args{x_codes.const_data_ptr(), w_codes.const_data_ptr(), a};
  const Dtype dtype = cuda_dtype(y.scalar_type());
  if (!s.ranges_set || !can_fuse_optical_linear(args, dtype)) return false;
  const int chip = multiprocessors();
  const at::Tensor seen =
      at::empty({s.train ? optical_linear_parts(args, chip) : 0}, y.options().dtype(at::kFloat));
  check_launch(op, launch_optical_linear(args, seen.mutable_data_ptr<float>(), dtype, chip,
                                         current_stream()));
  return true;
}

void add_move(OpticalOutputArgs& a, const at::Tensor& range, const float* seen) {
  a.move[a.moves++] = {range.mutable_data_ptr<float>(), seen};
}

// fp16 for half types, fp32 for fp32.
at::ScalarType product_type(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? at::kFloat : at::kHalf;
}

// codes w_codes^T, with fp32 accumulation.
at::Tensor product_of(const at::Tensor& codes, const at::Tensor& w_codes, at::ScalarType type) {
  const FullAccumulation full;
  return type == at::kFloat ? at::mm(codes, w_codes.t(), at::kFloat) : at::mm(codes, w_codes.t());
}

bool has_cuda_kernel(const at::Tensor& x, const OpticalSettings& s, int64_t inner) {
  return optical_op::has_kernel(x, s) && inner <= kMaxHalfSum && x.numel() > 0;
}

// The kernels read an encoded weight by its pointers.
void check_encoded(const OpticalOperand& encoded, const at::Tensor& weight,
                   at::IntArrayRef splits) {
  const auto check = [&](const char* name, const at::Tensor& t, at::ScalarType type,
                         at::IntArrayRef sizes) {
    TORCH_CHECK(t.scalar_type() == type && t.sizes() == sizes && t.is_contiguous() &&
                    t.device() == weight.device(),
                "refract::optical_linear: expected the encoded weight's ", name, " contiguous, ",
                type, " ", sizes, " on ", weight.device(), ", got ", t.scalar_type(), " ",
                t.sizes(), " on ", t.device(), "; pass what optical_encode gives for this weight");
  };
  const auto members = static_cast<int64_t>(splits.size());
  check("codes", encoded.codes, at::kHalf, weight.sizes());
  check("sums", encoded.sums, at::kFloat, {weight.size(0)});
  check("ranges", encoded.used, at::kFloat, {members, 2});
  check("seen values", encoded.seen, at::kFloat, {members, kOpticalParts, 2});
}

at::Tensor linear_cuda(const OpticalLinearForwardInputs& in) {
  const OpticalSettings& s = in.settings;
  const char* op = "optical_linear";
  if (!has_cuda_kernel(in.x, s, in.x.size(-1))) {
    return composite::optical_linear_forward(in);
  }
  optical_linear_op::check(in);
  const OpticalOperand encoded = optical_linear_op::operand_of(in.encoded);
  check_encoded(encoded, in.weight, in.splits);
  const c10::cuda::CUDAGuard guard(in.x.device());
  std::vector<int64_t> sizes = in.x.sizes().vec();
  const int64_t inner = sizes.back(), columns = in.weight.size(0), rows = in.x.numel() / inner;
  sizes.back() = columns;
  at::Tensor y = at::empty(sizes, in.x.options());
  at::Tensor ticket = at::empty({1}, in.x.options().dtype(at::kInt));
  OpticalOutputArgs a{};
  a.ticket = reinterpret_cast<unsigned*>(ticket.mutable_data_ptr<int32_t>());
  const OpticalOperand x = encode_cuda({in.x, in.x_range, rows, s}, 0, a.ticket);
  const at::Tensor bias = in.bias.has_value() ? in.bias->contiguous() : at::Tensor();
  a.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
  a.row_sums = x.sums.const_data_ptr<float>();
  a.column_sums = encoded.sums.const_data_ptr<float>();
  a.row_used = x.used.const_data_ptr<float>();
  a.column_used = encoded.used.const_data_ptr<float>();
  a.members = members_of(in.out_ranges, in.splits);
  a.batches = 1;
  a.rows = rows;
  a.columns = columns;
  a.inner = inner;
  a.slices = sizes.size() > 1 ? sizes[0] : 1;
  add_move(a, in.x_range, x.seen.const_data_ptr<float>());
  for (size_t m = 0; in.move_weights && m < in.splits.size(); ++m) {
    add_move(a, in.w_ranges[m],
             encoded.seen.const_data_ptr<float>() + static_cast<int64_t>(m) * kOpticalParts * 2);
  }
  const at::Tensor clock = clock_of(s);
  set_output(a, s, y, clock);
  const at::Tensor codes = x.codes.view({rows, inner});
  if (run_fused(op, a, codes, encoded.codes, y, s)) return y;
  run_output(op, a, product_of(codes, encoded.codes, product_type(in.x)), y, s);
  return y;
}

at::Tensor matmul_cuda(const OpticalMatmulInputs& in) {
  const OpticalSettings& s = in.settings;
  const char* op = "optical_matmul";
  if (!has_cuda_kernel(in.a, s, in.a.size(-1)) || in.b.numel() == 0) {
    return composite::optical_matmul(in);
  }
  optical_matmul_op::check(in);
  const c10::cuda::CUDAGuard guard(in.a.device());
  const int64_t rows = in.a.size(-2), inner = in.a.size(-1), columns = in.b.size(-1);
  const int64_t batches = in.a.numel() / (rows * inner);
  std::vector<int64_t> sizes = in.a.sizes().vec();
  sizes.back() = columns;
  at::Tensor y = at::empty(sizes, in.a.options());
  at::Tensor ticket = at::empty({1}, in.a.options().dtype(at::kInt));
  OpticalOutputArgs o{};
  o.ticket = reinterpret_cast<unsigned*>(ticket.mutable_data_ptr<int32_t>());
  const OpticalOperand a = encode_cuda({in.a, in.a_range, batches * rows, s}, 0, o.ticket);
  const OpticalOperand b =
      encode_cuda({in.b.transpose(-1, -2), in.b_range, batches * columns, s}, s.lut_min, nullptr);
  at::Tensor product;
  {
    const FullAccumulation full;
    const at::Tensor left = a.codes.view({batches, rows, inner});
    const at::Tensor right = b.codes.view({batches, columns, inner}).transpose(1, 2);
    product =
        product_type(in.a) == at::kFloat ? at::bmm(left, right, at::kFloat) : at::bmm(left, right);
  }
  o.row_sums = a.sums.const_data_ptr<float>();
  o.column_sums = b.sums.const_data_ptr<float>();
  o.row_used = a.used.const_data_ptr<float>();
  o.column_used = b.used.const_data_ptr<float>();
  o.members = members_of(in.out_range, columns);
  o.batches = batches;
  o.rows = rows;
  o.columns = columns;
  o.inner = inner;
  o.slices = sizes[0];
  add_move(o, in.a_range, a.seen.const_data_ptr<float>());
  add_move(o, in.b_range, b.seen.const_data_ptr<float>());
  const at::Tensor clock = clock_of(s);
  set_output(o, s, y, clock);
  run_output(op, o, product, y, s);
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_encode).cuda<encode_form>();
  forms(m, optical_linear_forward).cuda<linear_cuda>();
  forms(m, optical_matmul_forward).cuda<matmul_cuda>();
}

}  // namespace refract
