// Loss of a model on a token stream, every token but the first predicted exactly once.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "data/tokens.h"
#include "model/decoder.h"

namespace refract {

class World;

struct Evaluation {
  double loss = 0;      // mean cross-entropy in nats over predicted tokens
  double accuracy = 0;  // share of them whose argmax is right
  int64_t tokens = 0;   // predicted tokens
  double perplexity() const;
};

// Windows of context + 1 tokens that overlap by one; the last, shorter one counts. At most
// `max_windows` whole windows from the start of the stream (0: all of it). `progress` is told the
// tokens that are predicted so far and those that will be, from any thread but by one at a time.
// Several processes of `world` (null: one) divide the windows and come to the number that one of
// them alone would.
using EvaluationProgress = std::function<void(int64_t done, int64_t all)>;
Evaluation evaluate(Decoder& model, const TokenStream& stream, int64_t context,
                    int64_t max_windows = 0, const EvaluationProgress& progress = {},
                    World* world = nullptr);

}  // namespace refract
