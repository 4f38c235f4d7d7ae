#include "fuzz/fuzz_target.h"
#include "text/hf_tokenizer.h"

namespace {
constexpr const char* kText = "One day, 42 cats <|endoftext|> sat\n\n on a \xc3\xa9 mat.\xff";
}

// Added tokens are a part of the file. A tokenizer that opens also encodes and decodes.
FUZZ_TARGET(tokenizer_json) {
  const auto [tokenizer, config] = refract::fuzz::two_files(text);
  refract::is_sentencepiece_translation(tokenizer);
  std::map<std::string, std::string> files = {{"tokenizer.json", std::string(tokenizer)}};
  if (!config.empty()) files["tokenizer_config.json"] = std::string(config);
  const auto opened = refract::make_hf_tokenizer(files, "tokenizer.json");
  opened->decode(opened->encode(kText));
}
