#include "decode/continue_texts.h"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "decode/text_stream.h"

namespace refract {

std::vector<Continuation> continue_texts(Decoder& model, const Tokenizer& tokenizer,
                                         const std::vector<std::string>& prompts, TokenId start,
                                         const SamplingOptions& sampling,
                                         const DecodeOptions& options) {
  std::vector<std::vector<TokenId>> tokens;
  for (const std::string& prompt : prompts)
    tokens.push_back(prompt_tokens(tokenizer, prompt, start));
  const auto made = generate_batch(model, tokens, sampling, options);
  std::vector<Continuation> all;
  for (size_t i = 0; i < made.size(); ++i)
    all.push_back({continuation(tokenizer, tokens[i], made[i]), made[i]});
  return all;
}

nlohmann::json samples_json(const std::vector<std::string>& prompts,
                            const std::vector<Continuation>& made) {
  nlohmann::json samples = nlohmann::json::array();
  for (size_t i = 0; i < made.size(); ++i)
    samples.push_back({{"prompt", prompts[i]}, {"text", made[i].text}, {"tokens", made[i].tokens}});
  return samples.size() == 1 ? samples[0] : nlohmann::json{{"samples", samples}};
}

void continue_text(Decoder& model, const Tokenizer& tokenizer, const std::string& prompt,
                   TokenId start, const SamplingOptions& sampling, DecodeOptions options,
                   const std::function<void(std::string_view)>& write) {
  const std::vector<TokenId> tokens = prompt_tokens(tokenizer, prompt, start);
  TextStream text(tokenizer, tokens);
  options.on_token = [&](int64_t /*prompt*/, TokenId token) { write(text.add(token)); };
  generate_batch(model, {tokens}, sampling, options);
  write(text.rest());
}

}  // namespace refract
