// From the settings to a tokenizer and two token streams.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "data/config.h"
#include "data/tokens.h"
#include "text/tokenizer.h"

namespace refract {

struct Dataset {
  std::shared_ptr<const Tokenizer>
      tokenizer;  // null when the corpus is shards and no tokenizer was named
  std::shared_ptr<TokenStream> train, validation;
  std::string description;  // "stories:20MB, 12,345 documents, 4.9M + 0.5M tokens"
};

// Reads, splits and tokenizes the corpus into shards in the cache, or finds them there from an
// earlier run. `tokenizer`: one that is given (a checkpoint's) instead of config.tokenizer. Shards
// are used as they are: val.bin and *_val_*.bin beside them are for validation, else the last part
// of the tokens. `validation` is empty where data.validation_fraction is 0. With data.weights each
// entry of data.path is a corpus of its own, split by itself; `train` and `validation` are theirs
// one behind the other (mix/mixture.h).
Dataset open_dataset(const DataConfig& config,
                     std::shared_ptr<const Tokenizer> tokenizer = nullptr);

// The whole of a corpus (data.path) as one stream, for `refract eval --data`. Text needs a
// tokenizer, given or named by data.tokenizer.
std::shared_ptr<TokenStream> open_corpus(const DataConfig& config,
                                         std::shared_ptr<const Tokenizer> tokenizer);

// With data.documents = "isolated" and no data.document_token: sets it to the tokenizer's
// end-of-text token. Fails (usage) where there is none.
void resolve_document_token(DataConfig& config, const Tokenizer* tokenizer);

}  // namespace refract
