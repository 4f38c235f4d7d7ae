// A place of the server in which one sequence grows.
#pragma once
#include <cstdint>
#include <optional>

#include "core/random.h"
#include "model/slots.h"
#include "serve/engine/model_use.h"
#include "serve/engine/work.h"

namespace refract {

class Slot {
 public:
  // Keys and values of up to `capacity` tokens, allocated once.
  Slot(ModelUse& use, int64_t capacity);

  bool busy() const { return work_.has_value(); }
  const Work& work() const { return *work_; }
  // Reads all but the last token of a prompt; prompt and new tokens but one must fit the capacity.
  void start(Work work);
  // Makes the next token. `end` is set with the last one: with kStop it is the token that ends a
  // text.
  struct Step {
    TokenScore token;
    std::optional<End> end;
  };
  Step step();
  void release() { work_.reset(); }

 private:
  ModelUse& use_;
  KvCache cache_;
  bool by_lengths_;
  std::optional<Work> work_;
  std::optional<RandomStream> random_;
  TokenId last_ = 0;             // what the next step feeds
  int64_t held_ = 0, made_ = 0;  // tokens in the cache; new tokens
};

}  // namespace refract
