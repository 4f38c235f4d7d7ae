// Linear layers and attention whose products take place in a ProductMedium.
#pragma once
#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/media/product_medium.h"

namespace refract {

using SharedMedium = std::shared_ptr<const ProductMedium>;

// Its parameter is the dense weight, "<name>.weight" [out, in].
std::unique_ptr<LinearLayer> make_medium_linear(Build build, const LinearSpec& spec,
                                                SharedMedium medium);
// A group's members by one product, so that their input is represented once. Null where the medium
// joins no weights or only some members have a bias. Enters the members under the name `kind`.
std::unique_ptr<Projections> make_medium_projections(Build build, const ProjectionSpec& spec,
                                                     SharedMedium medium, const std::string& kind);
// Both products of attention; scores, softmax and mask stay digital, in fp32. The heads that share
// keys are the rows of one product. Fails (usage) for an attention with dropout.
std::unique_ptr<AttentionCore> make_medium_attention(const AttentionSpec& spec,
                                                     SharedMedium medium);

}  // namespace refract
