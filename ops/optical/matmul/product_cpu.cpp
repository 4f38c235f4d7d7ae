// CPU kernels of the optical products: operands become codes in fp32, one GEMM multiplies them, and
// one pass over its result quantizes, adds noise and bias, and collects the range.
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/define.h"
#include "ops/common/simd.h"
#include "ops/dense/linear/linear.h"
#include "ops/optical/linear/linear.h"
#include "ops/optical/matmul/matmul.h"
#include "ops/optical/quantize/parallel_cpu.h"
#include "ops/optical/quantize/row_loops.h"

namespace refract {
namespace {

using optical::Quantizer;
using optical::Range;
using optical::ranges_in;

template <class T>
void encode_member(const T* x, float* codes, float* sums, int64_t rows, int64_t width, Range range,
                   const OpticalSettings& s, Range& used, Range& seen) {
  used = range;
  if (!optical::is_set(range)) {
    used = optical::over_rows(rows, width, [&](int64_t begin, int64_t end) {
      return optical::seen_in(x + begin * width, (end - begin) * width);
    });
  }
  const Quantizer q =
      optical::quantizer(used, static_cast<int>(s.levels), static_cast<float>(s.lut_min));
  const optical::EncodeRow a{q, optical::coder(q)};
  seen = optical::over_rows(rows, width, [&](int64_t begin, int64_t end) {
    Range part = optical::unset_range();
    for (int64_t r = begin; r < end; ++r) {
      part = optical::merge(
          part, optical::encode_row(x + r * width, codes + r * width, sums + r, width, a));
    }
    return part;
  });
}

OpticalOperand encode_cpu(const OpticalEncodeInputs& in) {
  if (!optical_op::has_kernel(in.x, in.settings)) {
    return composite::optical_encode(in);
  }
  optical_op::check_encode(in);
  const at::Tensor x = in.x.contiguous();
  const auto options = x.options().dtype(at::kFloat);
  const int64_t width = x.size(-1), members = static_cast<int64_t>(in.splits.size());
  int64_t rows = 0;
  for (const int64_t n : in.splits) rows += n;
  OpticalOperand o{at::empty(x.sizes(), options), at::empty({rows}, options),
                   at::empty({members, 2}, options), at::empty({members, 1, 2}, options)};
  optical::dispatch_kernel_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    int64_t begin = 0;
    for (size_t m = 0; m < in.splits.size(); ++m) {
      encode_member(
          x.const_data_ptr<T>() + begin * width, o.codes.mutable_data_ptr<float>() + begin * width,
          o.sums.mutable_data_ptr<float>() + begin, in.splits[m], width, *ranges_in(in.ranges[m]),
          in.settings, ranges_in(o.used)[m], ranges_in(o.seen)[m]);
      begin += in.splits[m];
    }
  });
  return o;
}

// The products of one member: all rows of its columns. Pointers are at its first column.
struct Member {
  const float* product;
  int64_t rows, columns, stride;  // stride of product and output
  int64_t inner;                  // K
  int64_t rows_per_batch;         // rows that share their column operand
  const float *row_sums, *column_sums;
  Range row_used, column_used;
  int64_t slices;  // size of dimension 0
  int64_t stream;
};

// What a column adds to its products, [batches, columns].
std::vector<float> column_terms(const Member& o, const optical::Mix& mix) {
  std::vector<float> terms(static_cast<size_t>(o.rows / o.rows_per_batch * o.columns));
  for (size_t j = 0; j < terms.size(); ++j) {
    terms[j] = optical::add(optical::mul(mix.column_gain, o.column_sums[j]), mix.constant);
  }
  return terms;
}

// Writes y and moves `range`.
template <class T>
void output_member(const Member& o, T* y, const T* bias, Range& range, const OpticalSettings& s) {
  const auto levels = static_cast<int>(s.levels);
  const optical::Mix mix =
      optical::mix(optical::quantizer(o.row_used, levels, 0),
                   optical::quantizer(o.column_used, levels, static_cast<float>(s.lut_min)),
                   static_cast<float>(o.inner));
  const std::vector<float> terms = column_terms(o, mix);
  std::vector<float> added(static_cast<size_t>(o.columns), 0.0f);
  for (int64_t j = 0; bias != nullptr && j < o.columns; ++j) {
    added[static_cast<size_t>(j)] = simd::widen(bias[j]);
  }
  auto row_term = [&](int64_t r) { return optical::mul(mix.row_gain, o.row_sums[r]); };
  auto terms_of = [&](int64_t r) { return terms.data() + r / o.rows_per_batch * o.columns; };
  Range used = range;
  if (!optical::is_set(used)) {
    used = optical::over_rows(o.rows, o.columns, [&](int64_t begin, int64_t end) {
      Range part = optical::unset_range();
      for (int64_t r = begin; r < end; ++r) {
        part = optical::merge(part, optical::seen_in_product(o.product + r * o.stride, terms_of(r),
                                                             o.columns, mix.gain, row_term(r)));
      }
      return part;
    });
  }
  const optical::NoisePlace noise(s.noise && !s.shared_noise.has_value(), s.clock,
                                  o.rows * o.columns / o.slices, s.seed, o.stream);
  const optical::OutputRow settings{optical::quantizer(used, levels, 0), mix.gain, 0,
                                    static_cast<float>(s.shared_noise.value_or(0)),
                                    s.clipped_ranges};
  const Range seen = optical::over_rows(o.rows, o.columns, [&](int64_t begin, int64_t end) {
    optical::OutputRow a = settings;
    Range part = optical::unset_range();
    for (int64_t r = begin; r < end; ++r) {
      a.row = row_term(r);
      optical::over_chunks(
          noise, r * o.columns, o.columns, [&](int64_t j, int64_t n, const uint16_t* halves) {
            const int64_t at = r * o.stride + j;
            part = optical::merge(part, optical::output_row(o.product + at, y + at, terms_of(r) + j,
                                                            added.data() + j, halves, n, a));
          });
    }
    return part;
  });
  if (!s.train) return;
  range = optical::moved(s.clipped_ranges ? used : range, seen, static_cast<float>(s.smooth));
}

void move_by(const at::Tensor& range, Range seen, const OpticalSettings& s) {
  if (s.train)
    *ranges_in(range) = optical::moved(*ranges_in(range), seen, static_cast<float>(s.smooth));
}

at::Tensor linear_cpu(const OpticalLinearForwardInputs& in) {
  const OpticalSettings& s = in.settings;
  if (!optical_op::has_kernel(in.x, s)) {
    return composite::optical_linear_forward(in);
  }
  optical_linear_op::check(in);
  const OpticalOperand encoded = optical_linear_op::operand_of(in.encoded);
  std::vector<int64_t> sizes = in.x.sizes().vec();
  const int64_t inner = sizes.back(), columns = in.weight.size(0);
  sizes.back() = columns;
  at::Tensor y = at::empty(sizes, in.x.options());
  if (in.x.numel() == 0) return y;
  OpticalSettings input = s;
  input.lut_min = 0;
  const int64_t rows = in.x.numel() / inner;
  const OpticalOperand x = encode_cpu({in.x, in.x_range, rows, input});
  const at::Tensor product = fused_linear(x.codes.view({rows, inner}), encoded.codes);
  const at::Tensor bias = in.bias.has_value() ? in.bias->contiguous() : at::Tensor();
  optical::dispatch_kernel_type(in.x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    int64_t begin = 0;
    for (size_t m = 0; m < in.splits.size(); ++m) {
      const Member o{product.const_data_ptr<float>() + begin,
                     rows,
                     in.splits[m],
                     columns,
                     inner,
                     rows,
                     x.sums.const_data_ptr<float>(),
                     encoded.sums.const_data_ptr<float>() + begin,
                     *ranges_in(x.used),
                     ranges_in(encoded.used)[m],
                     sizes.size() > 1 ? sizes[0] : 1,
                     m < s.streams.size() ? s.streams[m] : 0};
      output_member(o, y.mutable_data_ptr<T>() + begin,
                    bias.defined() ? bias.const_data_ptr<T>() + begin : nullptr,
                    *ranges_in(in.out_ranges[m]), s);
      if (in.move_weights) move_by(in.w_ranges[m], ranges_in(encoded.seen)[m], s);
      begin += in.splits[m];
    }
  });
  move_by(in.x_range, *ranges_in(x.seen), s);
  return y;
}

at::Tensor matmul_cpu(const OpticalMatmulInputs& in) {
  const OpticalSettings& s = in.settings;
  if (!optical_op::has_kernel(in.a, s) || in.a.numel() == 0 || in.b.numel() == 0) {
    return composite::optical_matmul(in);
  }
  optical_matmul_op::check(in);
  const int64_t rows = in.a.size(-2), inner = in.a.size(-1), columns = in.b.size(-1);
  const int64_t batches = in.a.numel() / (rows * inner);
  std::vector<int64_t> sizes = in.a.sizes().vec();
  sizes.back() = columns;
  at::Tensor y = at::empty(sizes, in.a.options());
  OpticalSettings left = s;
  left.lut_min = 0;
  const OpticalOperand a = encode_cpu({in.a, in.a_range, batches * rows, left});
  const OpticalOperand b = encode_cpu({in.b.transpose(-1, -2), in.b_range, batches * columns, s});
  const at::Tensor product = at::bmm(a.codes.view({batches, rows, inner}),
                                     b.codes.view({batches, columns, inner}).transpose(1, 2));
  optical::dispatch_kernel_type(in.a.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Member o{product.const_data_ptr<float>(),
                   batches * rows,
                   columns,
                   columns,
                   inner,
                   rows,
                   a.sums.const_data_ptr<float>(),
                   b.sums.const_data_ptr<float>(),
                   *ranges_in(a.used),
                   *ranges_in(b.used),
                   sizes[0],
                   s.streams.empty() ? 0 : s.streams[0]};
    output_member<T>(o, y.mutable_data_ptr<T>(), nullptr, *ranges_in(in.out_range), s);
  });
  move_by(in.a_range, *ranges_in(a.seen), s);
  move_by(in.b_range, *ranges_in(b.seen), s);
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_encode).cpu<encode_cpu>();
  forms(m, optical_linear_forward).cpu<linear_cpu>();
  forms(m, optical_matmul_forward).cpu<matmul_cpu>();
}

}  // namespace refract
