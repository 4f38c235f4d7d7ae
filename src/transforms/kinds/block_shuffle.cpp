// BlockShuffle, the Monarch matrices of Dao et al. (arXiv 2204.00595): y = f^-1(U_b f(V_b x)), both
// factors block diagonal with B blocks. With H = min(N, M) inner features, V_b is [B, H/B, N/B] for
// N < M and [B, M/B, N/B] otherwise, U_b [B, M/B, H/B] with H = N or M; min(N, M) (N + M) / B
// parameters. f reads the first product as a grid [H/B, B] and hands its column b to block b: inner
// feature i B + b is input i of block b. The output is written the same way: block b's output j is
// feature j B + b.
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "transforms/structured/factorization.h"
#include "transforms/structured/structured_kind.h"

namespace refract {
namespace {

// The block (to, from) of the weight, rows to, to + B, ... and the columns of block `from`, is the
// product of U_to's columns and V_from's rows that carry the inner features both touch; no two
// blocks share any, so each has a truncated SVD of its own (Dao et al., section 3.3, where that
// rank is 1).
std::pair<at::Tensor, at::Tensor> project(const at::Tensor& weight, const FactorShape& first,
                                          const FactorShape& second) {
  const int64_t B = first.blocks, per_block = first.out;  // inner features of a block of V
  at::Tensor v = at::zeros({B, first.out, first.in}, weight.options());
  at::Tensor u = at::zeros({B, second.out, second.in}, weight.options());
  const at::Tensor grid = weight.view({second.out, B, B, first.in});  // [j, to, from, k]
  for (int64_t from = 0; from < B; ++from) {
    for (int64_t to = 0; to < B; ++to) {
      // Inner features f = i B + to in [from per_block, (from + 1) per_block).
      const int64_t begin = (from * per_block - to + B - 1) / B;
      const int64_t end = ((from + 1) * per_block - to + B - 1) / B;
      if (begin == end) continue;
      const auto [left, right] = truncated_svd(grid.select(1, to).select(1, from), end - begin);
      u[to].narrow(1, begin, end - begin).copy_(left);
      const int64_t row = begin * B + to - from * per_block;
      v[from].slice(0, row, row + (end - begin - 1) * B + 1, B).copy_(right);
    }
  }
  return {v, u};
}

class BlockShuffle : public StructuredKind {
 public:
  BlockShuffle() : StructuredKind("ortho") {}

  void describe(Fields& fields) override {
    fields.add("blocks", blocks_, "blocks B of both factors", {.min = 1});
    describe_common(fields);
  }

  void check_shape(const LinearSpec& spec) const override {
    const int64_t both = std::gcd(spec.in_features, spec.out_features);
    if (both % blocks_ == 0) return;
    fail_usage("'{}' is [{}, {}]: block_shuffle's blocks = {} doesn't divide both; {} would do",
               spec.name, spec.out_features, spec.in_features, blocks_, divisors(both, 1));
  }

  StructuredForm form(const LinearSpec& spec) const override {
    const int64_t inner = std::min(spec.in_features, spec.out_features);
    StructuredForm form;
    form.first = {blocks_, inner / blocks_, spec.in_features / blocks_};
    form.second = {blocks_, spec.out_features / blocks_, inner / blocks_};
    form.first_layout.feature_major = true;
    form.second_layout = {.interleaved_in = true, .interleaved_out = true};
    form.project = [first = form.first, second = form.second](const at::Tensor& weight) {
      return project(weight, first, second);
    };
    return form;
  }

  // The published sizes.
  std::string parameters_for_share(int64_t /*width*/, double share) const override {
    return fmt::format(R"({{"blocks": {}}})", nearer_to_smaller_size(share) ? 4 : 2);
  }

 private:
  int64_t blocks_ = 2;
};

}  // namespace

REFRACT_KIND(block_shuffle, BlockShuffle,
             "two block diagonal factors with a shuffle between them (Monarch)");

}  // namespace refract
