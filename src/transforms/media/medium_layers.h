// Linear layers and attention that are products in a medium.
#pragma once
#include <memory>
#include <string>

#include "model/dense.h"
#include "model/slots.h"
#include "transforms/media/medium_product.h"

namespace refract {

// A linear layer with an ordinary weight, "<name>.weight" [out, in].
class MediumLinear : public DenseLinear {
 public:
  MediumLinear(Build build, const LinearSpec& spec, std::unique_ptr<MediumProduct> product);
  // The same over a weight that its group declared.
  MediumLinear(Build build, Parameter* weight, const LinearSpec& spec,
               std::unique_ptr<MediumProduct> product);
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;
  bool computes_merged() const override { return false; }
  int64_t multiplications() const override;

 private:
  int64_t dense_multiplications_;
  std::unique_ptr<MediumProduct> product_;
};

// A group's members by one product over their joined weights, so that their input is represented
// once. Of a medium that declares no buffers. Null where only some members have a bias. Enters the
// members under the name `kind`.
std::unique_ptr<Projections> make_medium_projections(Build build, const ProjectionSpec& spec,
                                                     const GivesProduct& medium,
                                                     const std::string& kind);
// Both products of attention; scores, softmax and mask stay digital, in fp32. The heads that share
// keys are the rows of one product. Fails (usage) for an attention with dropout.
std::unique_ptr<AttentionCore> make_medium_attention(const AttentionSpec& spec,
                                                     std::unique_ptr<MediumProduct> scores,
                                                     std::unique_ptr<MediumProduct> values);

}  // namespace refract
