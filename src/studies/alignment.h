// Alignment of loaded models, as several commands offer it.
#pragma once
#include <memory>
#include <string>

#include "analysis/matching/align.h"
#include "runs/loaded_model.h"

namespace refract {

// Aligns `b` with `a` by "weights" or "activations" and says what came of it. `tokens` are those
// that activations are compared on.
AlignReport align_models(LoadedModel& a, LoadedModel& b, const std::string& by,
                         const std::string& residual, std::shared_ptr<TokenStream> tokens);

}  // namespace refract
