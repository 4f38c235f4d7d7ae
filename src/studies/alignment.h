// Alignment of loaded models: the study of `refract align`, and what other studies take of it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "analysis/matching/align.h"
#include "runs/loaded_model.h"

namespace refract {

// How models are aligned, in the words of the options of `refract align`.
struct AlignWords {
  std::string by = "weights", residual = "auto", heads = "auto";
  int64_t learn = 0;  // steps of learned matching
  bool both = false;  // A's maps are learned as well
  double rate = 1e-2;
};
// Fails (usage) for a word or number that is none. `by_option` is the option that `by` came from.
void check_words(const AlignWords& words, const std::string& by_option = "--by");

// Activations are compared on the first tokens of `tokens`: about as many whatever the context.
AlignOptions align_options(const AlignWords& words, std::shared_ptr<TokenStream> tokens,
                           int64_t context);

// Aligns `b` with `a` and says what came of it. `tokens` are those that activations are compared
// and maps learned on. Where both get a head of their own (analysis/matching/align.h) both models
// are replaced, and A's as it was is returned; else null.
struct AlignedModels {
  AlignReport report;
  bool moved_a = false;
  std::unique_ptr<Decoder> original_a;
};
AlignedModels align_models(LoadedModel& a, LoadedModel& b, const AlignWords& words,
                           std::shared_ptr<TokenStream> tokens);

struct AlignStudy {
  std::string a, b;   // as load_model() takes them
  std::string out;    // folder for the aligned copy of B
  std::string out_a;  // for A where its weights change too; empty: `out` and "-a"
  AlignWords words;
  std::vector<std::string> overrides;
  std::vector<std::string> data;  // the corpus to match on; empty: A's own
};

struct AlignedFolders {
  AlignReport report;
  std::string a;  // what the aligned B is to be compared with: the folder of A's copy, or study.a
};

// Aligns B with A and saves the aligned B with its tokenizer and settings in `out`, and A in
// `out_a` where it changed. Fails (usage) where the two are not points of one space, or where a
// folder already holds something.
AlignedFolders align_and_save(const AlignStudy& study);

}  // namespace refract
