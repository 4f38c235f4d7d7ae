#include "fuzz/fuzz_target.h"
#include "text/simple_tokenizers.h"

FUZZ_TARGET(chars_json) {
  const auto opened = refract::read_char_tokenizer(text, "chars.json");
  opened->decode({});
}
