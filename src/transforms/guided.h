// Self-guided training (Wei et al., arXiv 2406.16450, section 3.3): beside a structured layer f
// stands a dense guide W, and the output is a W x + (1 - a) f(x) while a falls from 1 to 0 over the
// first part of the training. W starts as exactly what f multiplies by, so the first output is f's.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"

namespace refract {

// The layer with its guide "<name>.guide" [out, in] (ParameterArena::declare_guide). `inner` must
// have a merged weight. Without ForwardContext::guide, and once the guides are dropped, it is the
// inner layer alone; so are its merged weight and what a checkpoint of the model holds.
std::unique_ptr<LinearLayer> make_guided(Build build, const LinearSpec& spec,
                                         std::unique_ptr<LinearLayer> inner);

// Names of the registered kinds that take a guide (Kind::takes_guide).
std::vector<std::string> guided_kinds();

}  // namespace refract
