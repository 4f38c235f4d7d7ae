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

// Finds the tokenized corpus in the cache, or makes it there. The cache is config.cache, else
// $XDG_CACHE_HOME/refract/tokens, else ~/.cache/refract/tokens. The corpus's folder in it is named
// by a hash of what it depends on: the files (path, size, time) or the generator's settings, the
// tokenizer's content, the split. It is written under another name and renamed when complete; of
// several processes one makes it and the others wait. A damaged one is made again. `tokenizer`:
// null for config.tokenizer.
CachedCorpus open_cached_corpus(const DataConfig& config,
                                std::shared_ptr<const Tokenizer> tokenizer);

}  // namespace refract
