#include "decode/generate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "decode/generation.h"

namespace refract {
namespace {

std::vector<std::vector<TokenId>> run(Generation& generation,
                                      const std::vector<std::vector<TokenId>>& prompts,
                                      int64_t first, const DecodeOptions& options) {
  generation.start(prompts, first);
  generation.run(options);
  return generation.made();
}

}  // namespace

std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const std::string& text,
                                   TokenId start) {
  std::vector<TokenId> tokens = tokenizer.encode(text);
  if (tokens.empty()) tokens = {start};
  return tokens;
}

std::vector<std::vector<TokenId>> generate_batch(Decoder& model,
                                                 const std::vector<std::vector<TokenId>>& prompts,
                                                 const SamplingOptions& sampling,
                                                 const DecodeOptions& options) {
  const at::NoGradGuard no_grad;
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const int64_t capacity = static_cast<int64_t>(longest) + sampling.max_tokens;
  const auto count = static_cast<int64_t>(prompts.size());
  const int64_t batch = model.follows_lengths() ? count : 1;
  Generation generation(model, batch, capacity, sampling, options.cuda_graph);
  if (batch == count) return run(generation, prompts, 0, options);
  std::vector<std::vector<TokenId>> made;
  for (int64_t i = 0; i < count; ++i)
    made.push_back(run(generation, {prompts[i]}, i, options).front());
  return made;
}

std::vector<TokenId> generate(Decoder& model, const std::vector<TokenId>& prompt,
                              const SamplingOptions& sampling,
                              const std::function<void(TokenId)>& on_token) {
  DecodeOptions options;
  if (on_token) options.on_token = [&](int64_t, TokenId token) { on_token(token); };
  return generate_batch(model, {prompt}, sampling, options).front();
}

}  // namespace refract
