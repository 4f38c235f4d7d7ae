// Text to token shards.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/config.h"
#include "data/shards.h"
#include "text/tokenizer.h"

namespace refract {

struct TokenizeOptions {
  int threads = 0;  // 0: all cores
  int64_t tokens_per_shard = kTokensPerShard;
  std::string stem = "tokens";  // <stem>_train_000000.bin, <stem>_val_000000.bin
};

struct TokenizedCorpus {
  int64_t documents = 0, train_tokens = 0, validation_tokens = 0;
  std::vector<std::filesystem::path> train, validation;  // shards, in order
};

// Splits the corpus as the settings say, encodes it on several threads and writes llm.c shards to
// `folder`, which is made where it is missing and must not hold shards of that stem. Between the
// documents of a part stands end_of_text, or a blank line where the tokenizer has no such token.
// Memory stays bounded by a batch of documents, or by the largest document where it can't be cut.
TokenizedCorpus tokenize_corpus(const DataConfig& config, const Tokenizer& tokenizer,
                                const std::filesystem::path& folder,
                                const TokenizeOptions& options = {});

// The tokenizer that data.tokenizer names; "chars" are those of the corpus, training and
// validation.
std::shared_ptr<const Tokenizer> make_tokenizer(const DataConfig& config);

// Where a long text can be cut so that the parts encode, one by one, to the ids of the whole: the
// ends of its pieces of about `piece_bytes`, the last one text.size(). Where no such place is found
// the piece goes on.
std::vector<size_t> find_cuts(const Tokenizer& tokenizer, std::string_view text,
                              size_t piece_bytes);

// One line that names a corpus in messages: "stories:20MB", "a.txt + 3 more".
std::string corpus_name(const std::vector<std::string>& paths);

}  // namespace refract
