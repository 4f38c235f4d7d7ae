// A tokenizer of a corpus's own.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/source.h"
#include "text/bpe/bpe_trainer.h"
#include "text/tokenizer.h"

namespace refract {

// Trains a byte-level BPE on the documents of a corpus (paths as open_source() takes them), writes
// it to `out` and opens it. `out` is a file if its name ends in .json, else a folder, which gets
// tokenizer.json and the tokenizer_config.json that transformers wants beside it. Folders are made.
std::shared_ptr<const Tokenizer> train_tokenizer(const std::vector<std::string>& corpus,
                                                 const SourceOptions& source,
                                                 const BpeTrainingOptions& options,
                                                 const std::filesystem::path& out);

}  // namespace refract
