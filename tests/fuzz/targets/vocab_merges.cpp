#include "fuzz/fuzz_target.h"
#include "text/gpt2_files.h"
#include "text/hf_tokenizer.h"

FUZZ_TARGET(vocab_merges) {
  const auto [vocab, merges] = refract::fuzz::two_files(text);
  const std::string json = refract::gpt2_tokenizer_json(vocab, merges, "", "vocab.json");
  const auto opened = refract::make_hf_tokenizer({{"tokenizer.json", json}}, "vocab.json");
  opened->decode(opened->encode("One day, 42 cats sat on a mat."));
}
