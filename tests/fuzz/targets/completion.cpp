#include "fuzz/fuzz_target.h"
#include "serve/api_error.h"
#include "serve/completion_request.h"
#include "text/simple_tokenizers.h"

// A request's body is taken or refused with an answer that is JSON.
FUZZ_TARGET(completion) {
  static const auto tokenizer = refract::make_byte_tokenizer();
  refract::RequestLimits limits;
  limits.context = 64;
  limits.vocabulary = 257;
  try {
    refract::parse_completion(text, *tokenizer, 256, limits);
  } catch (const refract::ApiError& error) {
    static_cast<void>(error.body());
  }
}
