// Alignment of loaded models: the study of `refract align`, and what other studies take of it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "analysis/matching/align.h"
#include "runs/loaded_model.h"

namespace refract {

// How models are aligned by "weights" or "activations". Activations are compared on the first
// tokens of `tokens`: about as many whatever the context.
AlignOptions align_options(const std::string& by, const std::string& residual,
                           std::shared_ptr<TokenStream> tokens, int64_t context);

// Aligns `b` with `a` and says what came of it. `tokens` are those that activations are compared
// on.
AlignReport align_models(LoadedModel& a, LoadedModel& b, const std::string& by,
                         const std::string& residual, std::shared_ptr<TokenStream> tokens);

struct AlignStudy {
  std::string a, b;  // as load_model() takes them
  std::string out;   // folder for the aligned copy of B
  std::string by = "weights", residual = "auto";
  std::vector<std::string> overrides;
  std::vector<std::string> data;  // the corpus of by = "activations"; empty: A's own
};

// Aligns B with A and saves the aligned B with its tokenizer and settings in `out`. Fails (usage)
// where the two are not points of one space, or where `out` already holds something.
AlignReport align_and_save(const AlignStudy& study);

}  // namespace refract
