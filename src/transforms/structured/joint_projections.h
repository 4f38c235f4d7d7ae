// The gate and up projections of a SwiGLU feed-forward as one structured layer [2 F, C], as the
// published code factors them: both share the first factor.
#pragma once
#include <memory>
#include <string>

#include "model/slots.h"

namespace refract {

// The one layer's spec for a group {gate, up}: the first member's name, the outputs of both.
LinearSpec joint_spec(const ProjectionSpec& spec);

// `layer` is of joint_spec(spec). Enters both members in build.transformed under the name `kind`:
// each is its half of the outputs, and of what `layer` multiplies. They take over a dense weight
// when both have theirs: the first returns an error of 0, the second that of the pair. Fails
// (usage) where only one member has a bias.
std::unique_ptr<Projections> make_joint_projections(Build build, const ProjectionSpec& spec,
                                                    std::unique_ptr<LinearLayer> layer,
                                                    const std::string& kind);

}  // namespace refract
