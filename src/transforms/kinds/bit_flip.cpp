// Random bit flips in the operands of every product, as in an unreliable memory or wire.
#include "ops/numeric/bit_flip.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "model/backward/remake.h"
#include "transforms/media/medium_kind.h"
#include "transforms/media/observer.h"

namespace refract {
namespace {

// Of one operand. A probability p becomes 2^-n with n = ceil(log2 1/p), 1 to 24; 0: none flips.
struct Flipping {
  double p_exp, p_frac, zero_out_t;
};

int64_t random_bits(double p) {
  if (p <= 0) return 0;
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(-std::log2(p))), 1, 24);
}

// What this call makes of an operand, as often as it is asked.
auto flipping(const ForwardContext& context, const Flipping& f, uint64_t stream, at::Tensor clock) {
  const auto zero_out = f.zero_out_t > 0 ? std::optional(f.zero_out_t) : std::nullopt;
  return [exponent = random_bits(f.p_exp), fraction = random_bits(f.p_frac), zero_out,
          seed = static_cast<int64_t>(context.seed), stream = static_cast<int64_t>(stream),
          clock = std::move(clock)](const at::Tensor& x) {
    return refract::bit_flip(x, exponent, fraction, zero_out, seed, stream, clock);
  };
}

// Dense while an observer is set (transforms/media/observer.h).
class FlippedProduct : public MediumProduct {
 public:
  FlippedProduct(const Flipping& first, const Flipping& second, bool persistent,
                 const ProductSite& site)
      : first_(first), second_(second), persistent_(persistent), site_(site) {}

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                      const at::Tensor& second) override {
    if (medium_observer()) return dense_product(first, second);
    const auto first_again =
        flipping(context, first_, site_.first_stream, activation_clock(context, first));
    const auto second_again =
        flipping(context, second_, site_.second_stream, second_clock(context, second));
    const at::Tensor a = first_again(first), b = second_again(second);
    at::Tensor y = dense_product(a, b);
    free_until_backward(a, y, [first_again, x = first.detach()] { return first_again(x); });
    free_until_backward(b, y, [second_again, x = second.detach()] { return second_again(x); });
    return y;
  }

 private:
  // Stuck cells are the same in every step.
  at::Tensor second_clock(const ForwardContext& context, const at::Tensor& second) const {
    if (!site_.weight) return activation_clock(context, second);
    const at::Tensor clock = weight_clock(context, second);
    return persistent_ ? clock.mul(0) : clock;
  }

  Flipping first_, second_;
  bool persistent_;
  ProductSite site_;
};

class BitFlip : public MediumKind {
 public:
  void describe(Fields& fields) override {
    const Limits probability = {.min = 0, .max = 0.5}, positive = {.min = 0};
    fields.add("x_p_exp", x_.p_exp, "chance of a bit of x's sign and exponent; becomes 2^-n",
               probability);
    fields.add("x_p_frac", x_.p_frac, "chance of a bit of x's fraction", probability);
    fields.add("x_zero_out_t", x_.zero_out_t, "an x that is not below this becomes 0; 0: none does",
               positive);
    fields.add("w_p_exp", w_.p_exp, "as for x, of the weight", probability);
    fields.add("w_p_frac", w_.p_frac, "as for x, of the weight", probability);
    fields.add("w_zero_out_t", w_.zero_out_t, "as for x, of the weight", positive);
    fields.add("persistent", persistent_,
               "the same bits of a weight flip in every step: stuck cells");
  }

 private:
  // Keys and values are activations: both operands of their products follow x's parameters.
  std::unique_ptr<MediumProduct> product_at(const ProductSite& site) const override {
    return std::make_unique<FlippedProduct>(x_, site.weight ? w_ : x_, persistent_, site);
  }

  Flipping x_{0x1p-16, 0x1p-16, 30}, w_{0x1p-16, 0x1p-16, 1.25};
  bool persistent_ = false;
};

}  // namespace

REFRACT_KIND(bit_flip, BitFlip, "random bit flips in the operands of every product");

}  // namespace refract
