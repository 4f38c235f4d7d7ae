#include "fuzz/fuzz_target.h"
#include "text/sentencepiece/sentencepiece_tokenizer.h"

// The library below is not instrumented; what it reads outside of its own memory shows only where
// it crashes. So a model that opens is also used.
FUZZ_TARGET(sentencepiece) {
  const auto opened = refract::make_sentencepiece_tokenizer(
      {{"tokenizer.model", std::string(text)}}, "tokenizer.model");
  const auto ids =
      opened->encode("One day, 42 \xef\xac\x81ne c\xc3\xa4ts \xe2\x85\xa3 sat on a mat.");
  opened->decode(ids);
}
