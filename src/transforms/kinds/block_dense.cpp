// BlockDense: y = U (V_b x) with V_b block diagonal [B, R/B, N/B] and U [M, R] dense; R (M + N/B)
// parameters.
#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "transforms/structured/factorization.h"
#include "transforms/structured/structured_kind.h"

namespace refract {
namespace {

class BlockDense : public StructuredKind {
 public:
  BlockDense() : StructuredKind("ortho") {}

  void describe(Fields& fields) override {
    fields.add("rank", rank_,
               "inner width R of all blocks together; 0: a quarter of the layer's smaller width",
               {.min = 0});
    fields.add("blocks", blocks_, "blocks B of the first factor", {.min = 1});
    describe_common(fields);
  }

  void check(const std::string& where) const override {
    if (rank_ % blocks_ != 0) {
      fail_usage("{}: rank = {} is not a multiple of blocks = {}; blocks may be {}", where, rank_,
                 blocks_, divisors(rank_, 1));
    }
    StructuredKind::check(where);
  }

  void check_shape(const LinearSpec& spec) const override {
    if (spec.in_features % blocks_ != 0) {
      const int64_t both = std::gcd(spec.in_features, rank_);  // gcd(n, 0) = n
      fail_usage("'{}' has {} inputs, which block_dense's blocks = {} doesn't divide; {} would do",
                 spec.name, spec.in_features, blocks_, divisors(both, 1));
    }
    if (rank_ > spec.in_features) {
      fail_usage(
          "'{}' has {} inputs, fewer than block_dense's rank = {}; a multiple of {} up to {} "
          "would do",
          spec.name, spec.in_features, rank_, blocks_, spec.in_features);
    }
  }

  StructuredForm form(const LinearSpec& spec) const override {
    StructuredForm form;
    const int64_t rank = rank_of(spec);
    form.first = {blocks_, rank / blocks_, spec.in_features / blocks_};
    form.second = {1, spec.out_features, rank};
    form.project = [B = blocks_, rank](const at::Tensor& weight) {
      // Block b of V only meets the columns of its inputs, so each column block has its own SVD.
      const int64_t M = weight.size(0), each = weight.size(1) / B;
      const auto [u, v] = truncated_svd(weight.view({M, B, each}).transpose(0, 1), rank / B);
      return std::pair(v, u.permute({1, 0, 2}).reshape({1, M, rank}));
    };
    return form;
  }

  // The published sizes: two blocks and 2/3 of the width where that is a multiple of 64 (768,
  // 1536), else four and 3/4, or half of that rank.
  std::string parameters_for_share(int64_t width, double share) const override {
    const bool thirds = width % 192 == 0 && width < 3072;
    const int64_t rank = thirds ? width * 2 / 3 : width * 3 / 4;
    return fmt::format(R"({{"blocks": {}, "rank": {}}})", thirds ? 2 : 4,
                       nearer_to_smaller_size(share) ? rank / 2 : rank);
  }

 private:
  int64_t rank_of(const LinearSpec& spec) const {
    if (rank_ > 0) return rank_;
    const int64_t quarter = std::min(spec.in_features, spec.out_features) / 4;
    return std::max<int64_t>(1, quarter / blocks_) * blocks_;
  }

  int64_t rank_ = 0, blocks_ = 2;
};

}  // namespace

REFRACT_KIND(block_dense, BlockDense, "a block diagonal factor and a dense one: U (V_b x)");

}  // namespace refract
