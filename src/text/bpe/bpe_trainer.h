// Trains a byte-level BPE and writes it as a tokenizer.json that `tokenizers` and transformers
// open. Sennrich et al. 2016 (arXiv:1508.07909) over the bytes of GPT-2 (Radford et al. 2019).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

struct BpeTrainingOptions {
  int64_t vocab_size = 8192;  // of the result at most: special tokens, 256 bytes, merges
  int64_t min_frequency = 2;  // pairs that occur less often are not merged
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  // get the ids from 0 on
  // "gpt2" (GPT-2's expression), "digits" (the same, every digit apart; cosmo2) or "llama3" (Llama
  // 3's expression, numbers in groups of three).
  std::string pre_tokenizer = "gpt2";
  bool nfc = false;  // normalize to NFC first
};

// Feed it documents, then call finish(). The result depends on the documents alone, not on their
// order, and has the merges that `tokenizers`' BpeTrainer finds: the most frequent pair first,
// among equals the one of the smallest ids.
class BpeTrainer {
 public:
  explicit BpeTrainer(BpeTrainingOptions options);
  ~BpeTrainer();

  // Counts the words of a document. Invalid UTF-8 is replaced by U+FFFD.
  void add(std::string_view document);

  // The bytes of the tokenizer.json. Fails where no document had any text.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace refract
