// LowRank: y = U (V x) with V [R, N], U [M, R]; (N + M) R parameters.
#include <algorithm>

#include "core/error.h"
#include "transforms/structured/factorization.h"
#include "transforms/structured/structured_kind.h"

namespace refract {
namespace {

class LowRank : public StructuredKind {
 public:
  LowRank() : StructuredKind("svd") {}

  void describe(Fields& fields) override {
    fields.add("rank", rank_, "inner width R; 0: a quarter of the layer's smaller width",
               {.min = 0});
    describe_common(fields);
  }

  void check_shape(const LinearSpec& spec) const override {
    const int64_t most = std::min(spec.in_features, spec.out_features);
    if (rank_ <= most) return;
    fail_usage("'{}' is [{}, {}]: low_rank's rank = {} exceeds its full rank; 1 to {} would do",
               spec.name, spec.out_features, spec.in_features, rank_, most);
  }

  StructuredForm form(const LinearSpec& spec) const override {
    StructuredForm form;
    const int64_t rank = rank_of(spec);
    form.first = {1, rank, spec.in_features};
    form.second = {1, spec.out_features, rank};
    form.project = [rank](const at::Tensor& weight) {
      auto [u, v] = truncated_svd(weight, rank);
      return std::pair(v.unsqueeze(0), u.unsqueeze(0));
    };
    return form;
  }

  // The published sizes: half of the width, or a quarter.
  std::string parameters_for_share(int64_t width, double share) const override {
    return fmt::format(R"({{"rank": {}}})", width / (nearer_to_smaller_size(share) ? 4 : 2));
  }

 private:
  int64_t rank_of(const LinearSpec& spec) const {
    if (rank_ > 0) return rank_;
    return std::max<int64_t>(1, std::min(spec.in_features, spec.out_features) / 4);
  }

  int64_t rank_ = 0;
};

}  // namespace

REFRACT_KIND(low_rank, LowRank, "two factors with a small inner width: U (V x)");

}  // namespace refract
