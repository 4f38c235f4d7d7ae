// Whether two models are points of one space.
#pragma once
#include <string>

#include "runs/loaded_model.h"

namespace refract {

// The first difference in architecture, vocabulary or transforms between two models, as
// "model.hidden_size is 64 in the first and 32 in the second"; empty where there is none. Settings
// that do not decide what the weights compute (dropout, starting values, the preset's name) may
// differ.
std::string first_difference(const LoadedModel& a, const LoadedModel& b);

// The same between the settings that decide what weights compute.
std::string config_difference(const ModelConfig& a, const ModelConfig& b);

// The first difference between two vocabularies, in the same words.
std::string vocabulary_difference(const Tokenizer& a, const Tokenizer& b);

}  // namespace refract
