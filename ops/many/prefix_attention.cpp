// Schema, checks and composite form of prefix_attention.
#include "ops/many/prefix_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <limits>

#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace prefix_attention_op {

void check(const PrefixAttentionInputs& in) {
  constexpr const char* op = "prefix_attention";
  check_floating(op, "qkv", in.qkv);
  TORCH_CHECK(in.num_heads > 0 && in.num_kv_heads > 0 && in.num_heads % in.num_kv_heads == 0,
              "refract::", op, ": expected num_kv_heads to divide num_heads, got ", in.num_kv_heads,
              " and ", in.num_heads);
  TORCH_CHECK(in.qkv.dim() == 3 && in.qkv.sym_size(2) % (in.num_heads + 2 * in.num_kv_heads) == 0,
              "refract::", op, ": expected qkv of shape [A, N, ",
              in.num_heads + 2 * in.num_kv_heads, " * D], got ", in.qkv.sym_sizes());
  check_vector(op, "depths", in.depths, in.qkv.sym_size(1));
  TORCH_CHECK(in.depths.scalar_type() == at::kLong || in.depths.scalar_type() == at::kInt,
              "refract::", op, ": expected depths to be int64 or int32, got ",
              in.depths.scalar_type());
  TORCH_CHECK(in.depths.device() == in.qkv.device(), "refract::", op, ": expected depths on ",
              in.qkv.device(), " as qkv, got ", in.depths.device());
  TORCH_CHECK(in.levels > 0, "refract::", op, ": expected at least one level, got ", in.levels);
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

at::Tensor prefix_attention(const PrefixAttentionInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  prefix_attention_op::check(in);
  const int64_t A = in.qkv.size(0), N = in.qkv.size(1), K = in.num_kv_heads, G = in.num_heads / K,
                D = in.qkv.size(2) / (in.num_heads + 2 * K);
  if (in.qkv.numel() == 0) return at::empty({A, N, in.num_heads * D}, in.qkv.options());
  const at::ScalarType wide = in.qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor depths = in.depths.to(at::kLong);
  const at::Tensor path = last_of_each_depth(depths, in.levels);
  const at::Tensor joint = in.qkv.to(wide).view({A, N, in.num_heads + 2 * K, D});
  const auto along_path = [&](int64_t first) {  // [A, N, K, levels, D]
    return joint.narrow(2, first, K)
        .index_select(1, path.flatten())
        .view({A, N, in.levels, K, D})
        .transpose(2, 3);
  };
  const at::Tensor q = joint.narrow(2, 0, in.num_heads).view({A, N, K, G, D});
  const at::Tensor hidden = at::arange(in.levels, depths.options()).gt(depths.unsqueeze(1));
  const at::Tensor scores = q.matmul(along_path(in.num_heads).transpose(-1, -2)).mul(in.scale);
  const at::Tensor probabilities =
      scores
          .masked_fill(hidden.view({N, 1, 1, in.levels}), -std::numeric_limits<double>::infinity())
          .softmax(-1);
  return probabilities.matmul(along_path(in.num_heads + K))
      .reshape({A, N, in.num_heads * D})
      .to(in.qkv.scalar_type());
}

}  // namespace composite

namespace {

at::Tensor meta(const PrefixAttentionInputs& in) {
  prefix_attention_op::check(in);
  auto sizes = in.qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads;
  return at::empty_symint(sizes, in.qkv.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, prefix_attention,
         "(Tensor qkv, Tensor depths, int levels, int num_heads, int num_kv_heads, float scale)"
         " -> Tensor")
      .composite<composite::prefix_attention>()
      .meta<meta>();
}

}  // namespace refract
