// What a run remembers of its corpus, so that it is not resumed or judged on another one.
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "data/dataset.h"
#include "train/run_config.h"

namespace refract {

// The corpus of a recipe, with the tokenizer of the model in `source` (empty: none) unless the
// recipe names one. Fails (usage) where the recipe's gives an id another meaning than the model's
// own, which its weights were trained with, and for a data.document_token whose documents are not
// isolated.
Dataset open_run_corpus(const RunConfig& config, const std::filesystem::path& source,
                        bool names_tokenizer);

// Names and sizes of the files, the settings that decide the text and its split, the vocabulary (of
// characters all of them), counts of tokens (of a mixture those of each corpus too) and a hash of
// samples of them (of all, up to four million); the folder that relative paths start from, and
// whether the tokenizer is the model's.
nlohmann::json corpus_record(const DataConfig& config, const Dataset& data,
                             bool tokenizer_of_model);
void write_corpus_record(const std::filesystem::path& run, const nlohmann::json& record);

// Fails (usage), saying what is another, where `run` remembers other tokens than `record` has. A
// run of an earlier version remembers nothing and is let through.
void check_corpus(const std::filesystem::path& run, const nlohmann::json& record);

}  // namespace refract
