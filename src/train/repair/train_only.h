// Which parameters a run trains: train.only.
#pragma once
#include <string>

#include "model/decoder.h"

namespace refract {

// Freezes every parameter whose whole name the regular expression does not match, adapters among
// them; a frozen one has neither gradient nor optimizer state. Ranges of media are no parameters,
// and follow the data in any case: an expression that matches nothing but their names
// ("model.layers.0.mlp.down_proj.x_range") leaves no parameter to train. An empty one leaves all as
// it is. The model is not allocated yet. Fails (usage) for an expression that is none, or that
// matches nothing; `where` names the settings.
void train_only(Decoder& model, const std::string& expression, const std::string& where);

}  // namespace refract
