// One model as the server computes with it: always one sequence at a time, so that what a request
// gets depends on nothing else, bit for bit, in any medium.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/random.h"
#include "model/decoder.h"
#include "serve/engine/work.h"

namespace refract {

class ModelUse {
 public:
  explicit ModelUse(Decoder& model) : model_(model) {}
  Decoder& model() { return model_; }
  // Whether a position's state depends on the tokens up to it alone. A medium may take its range
  // from all of its input, and then a token changes what stands before it.
  bool is_causal();
  // tokens -> final states [1, T, C]; with a cache they are appended to it.
  at::Tensor hidden(const std::vector<TokenId>& tokens, KvCache* cache);

 private:
  Decoder& model_;
  bool weights_changed_ = true;  // what layers derive from their weights is derived once
};

// The random numbers of one continuation: those that `refract generate` draws.
RandomStream sampling_stream(const Work& work);

// The next token after logits [1, V]: drawn as work.sampling says, with its score where the work
// asks for log-probabilities. Error where the logits are not finite.
TokenScore draw_token(const at::Tensor& logits_1V, const Work& work, RandomStream& random);

// Whether the token ends a text.
bool is_stop(const Work& work, TokenId token);

// The scores of a prompt's tokens, and the token after it where one is asked for, from one forward
// pass. No more logits exist at a time than those of a chunk of positions. Without a next token the
// pass does not see the prompt's last one, which nothing is predicted from.
struct PromptScores {
  std::vector<TokenScore> tokens;
  std::optional<TokenScore> next;
};
PromptScores score_prompt(ModelUse& use, const Work& work);

}  // namespace refract
