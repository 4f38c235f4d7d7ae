// The model's thread: what is asked of it waits in a bounded queue, and it advances all that it has
// begun by a token a round.
//
// Batching is continuous: a sequence joins in the round in which a slot gets free and leaves in the
// round of its last token. Every sequence has a slot, which is a KV cache of its own, allocated at
// the start; a step computes one sequence. A product over several rows may round a row in another
// way than the row alone, and a medium may take its range from the whole input, so a step over
// several sequences would let a request's numbers depend on its neighbours.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "model/decoder.h"
#include "serve/engine/model_use.h"
#include "serve/engine/slot.h"
#include "serve/engine/work.h"

namespace refract {

struct EngineOptions {
  int64_t slots = 8;
  int64_t context = 0;  // tokens of a slot
  int64_t queue = 256;  // works that may wait
};

enum class Admission { kTaken, kFull, kStopping };

class Engine {
 public:
  // Allocates the slots' caches. Fails, naming --slots and --context, where they do not fit.
  Engine(Decoder& model, const EngineOptions& options);

  // All of a request's works or none of them. By any thread.
  Admission submit(std::vector<Work> works);

  // Computes until it is stopped; the thread that calls it alone uses the model.
  void run();
  // Nothing more is taken; run() returns when all is done, and after `grace` what is left is cut
  // off. By any thread, once or more.
  void stop(std::chrono::milliseconds grace);

  struct Load {
    int64_t slots = 0, active = 0, waiting = 0;
    int64_t prompt_tokens = 0, new_tokens = 0;  // since the start
    bool stopping = false;
  };
  Load load() const;

 private:
  using Clock = std::chrono::steady_clock;

  bool round();
  void advance(Slot& slot);
  void begin(Slot& slot, Work work);
  void score(const Work& work);
  void finish(Slot& slot);
  void cut_off();
  Slot* free_slot();
  std::optional<Work> next(std::deque<Work>& waiting);
  bool is_one_pass(const Work& work) const;
  int64_t waiting_works() const;
  void drop_cancelled();

  ModelUse use_;
  bool causal_;
  EngineOptions options_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::atomic<int64_t> active_ = 0, prompt_tokens_ = 0, new_tokens_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> to_score_, to_continue_;  // two, so that neither kind waits for the other
  bool stopping_ = false;
  Clock::time_point deadline_;
};

}  // namespace refract
