// Whether a model says what it was trained on.
#pragma once
#include <string>
#include <vector>

#include "runs/loaded_model.h"

namespace refract {

// Fails (usage) where `data` is empty, so that the model's own corpus is asked for, and there is
// none: it is of no run, and the overrides name no data.path. The default corpus would be right for
// nothing.
void require_corpus(const LoadedModel& loaded, const std::vector<std::string>& overrides,
                    const std::vector<std::string>& data);

}  // namespace refract
