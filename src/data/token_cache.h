// Tokenized corpora kept from run to run.
#pragma once
#include <filesystem>
#include <memory>

#include "data/config.h"
#include "data/tokenize.h"

namespace refract {

struct CachedCorpus {
  TokenizedCorpus corpus;
  std::filesystem::path folder;
  std::shared_ptr<const Tokenizer> tokenizer;
};

// Finds the tokenized corpus in the cache, or makes it there. Its folder's name is a hash of what
// it depends on: the files (path, size, time) or the generator's settings, the tokenizer's content,
// the split. It is written under another name and renamed when complete; of several processes one
// makes it and the others wait. A damaged one is made again. `tokenizer`: null for
// config.tokenizer.
CachedCorpus open_cached_corpus(const DataConfig& config,
                                std::shared_ptr<const Tokenizer> tokenizer);

// config.cache, or the user's: $XDG_CACHE_HOME/refract/tokens, ~/.cache/refract/tokens.
std::filesystem::path cache_folder(const DataConfig& config);

}  // namespace refract
