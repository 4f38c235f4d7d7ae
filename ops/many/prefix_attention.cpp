// Schema, checks and composite form of prefix_attention.
#include "ops/many/prefix_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <limits>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace prefix_attention_op {

void check(const at::Tensor& qkv, const at::Tensor& depths, int64_t levels, int64_t num_heads,
           int64_t num_kv_heads) {
  constexpr const char* op = "prefix_attention";
  check_floating(op, "qkv", qkv);
  TORCH_CHECK(num_heads > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0, "refract::", op,
              ": expected num_kv_heads to divide num_heads, got ", num_kv_heads, " and ",
              num_heads);
  TORCH_CHECK(qkv.dim() == 3 && qkv.sym_size(2) % (num_heads + 2 * num_kv_heads) == 0,
              "refract::", op, ": expected qkv of shape [A, N, ", num_heads + 2 * num_kv_heads,
              " * D], got ", qkv.sym_sizes());
  check_vector(op, "depths", depths, qkv.sym_size(1));
  TORCH_CHECK(depths.scalar_type() == at::kLong || depths.scalar_type() == at::kInt,
              "refract::", op, ": expected depths to be int64 or int32, got ",
              depths.scalar_type());
  TORCH_CHECK(depths.device() == qkv.device(), "refract::", op, ": expected depths on ",
              qkv.device(), " as qkv, got ", depths.device());
  TORCH_CHECK(levels > 0, "refract::", op, ": expected at least one level, got ", levels);
}

}  // namespace prefix_attention_op

namespace composite {
namespace {

// [N, levels]: in row i, column d, the last node of depth d up to i, which is i's ancestor (or i)
// where d <= depths[i]; 0 where there is none yet.
at::Tensor last_of_each_depth(const at::Tensor& depths, int64_t levels) {
  const at::Tensor node = at::arange(depths.size(0), depths.options()).unsqueeze(1);
  const at::Tensor level = at::arange(levels, depths.options());
  return std::get<0>(at::where(depths.unsqueeze(1).eq(level), node, 0).cummax(0));
}

}  // namespace

at::Tensor prefix_attention(const at::Tensor& qkv, const at::Tensor& depths_in, int64_t levels,
                            int64_t num_heads, int64_t num_kv_heads, double scale) {
  at::AutoDispatchBelowADInplaceOrView guard;
  prefix_attention_op::check(qkv, depths_in, levels, num_heads, num_kv_heads);
  const int64_t A = qkv.size(0), N = qkv.size(1), K = num_kv_heads, G = num_heads / K,
                D = qkv.size(2) / (num_heads + 2 * K);
  if (qkv.numel() == 0) return at::empty({A, N, num_heads * D}, qkv.options());
  const at::ScalarType wide = qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor depths = depths_in.to(at::kLong);
  const at::Tensor path = last_of_each_depth(depths, levels);
  const at::Tensor joint = qkv.to(wide).view({A, N, num_heads + 2 * K, D});
  const auto along_path = [&](int64_t first) {  // [A, N, K, levels, D]
    return joint.narrow(2, first, K)
        .index_select(1, path.flatten())
        .view({A, N, levels, K, D})
        .transpose(2, 3);
  };
  const at::Tensor q = joint.narrow(2, 0, num_heads).view({A, N, K, G, D});
  const at::Tensor hidden = at::arange(levels, depths.options()).gt(depths.unsqueeze(1));
  const at::Tensor scores = q.matmul(along_path(num_heads).transpose(-1, -2)).mul(scale);
  const at::Tensor probabilities =
      scores.masked_fill(hidden.view({N, 1, 1, levels}), -std::numeric_limits<double>::infinity())
          .softmax(-1);
  return probabilities.matmul(along_path(num_heads + K))
      .reshape({A, N, num_heads * D})
      .to(qkv.scalar_type());
}

}  // namespace composite

at::Tensor prefix_attention(const at::Tensor& qkv, const at::Tensor& depths, int64_t levels,
                            int64_t num_heads, int64_t num_kv_heads, double scale) {
  static const auto op = find_op<decltype(prefix_attention)>("refract::prefix_attention");
  return op.call(qkv, depths, levels, num_heads, num_kv_heads, scale);
}

namespace {

at::Tensor meta(const at::Tensor& qkv, const at::Tensor& depths, int64_t levels, int64_t num_heads,
                int64_t num_kv_heads, double) {
  prefix_attention_op::check(qkv, depths, levels, num_heads, num_kv_heads);
  auto sizes = qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (num_heads + 2 * num_kv_heads) * num_heads;
  return at::empty_symint(sizes, qkv.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "prefix_attention(Tensor qkv, Tensor depths, int levels, int num_heads, int num_kv_heads,"
      " float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("prefix_attention", &composite::prefix_attention);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("prefix_attention", &meta); }

}  // namespace refract
