// The loop behind generate_batch(), and what benchmarks time.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "decode/generate.h"
#include "ops/common/cuda_runtime.h"

namespace refract {

// Sequences that grow by a token each step. The tokens, the random numbers, the lengths and the
// sampling lie on the device; the host reads tokens only when it has something to do with them.
class Generation {
 public:
  // Room for `batch` sequences of up to `capacity` tokens, fewer where the model's longest is less.
  // More than one needs a model that follows KvCache::lengths.
  Generation(Decoder& model, int64_t batch, int64_t capacity, const SamplingOptions& sampling,
             bool cuda_graph);

  // Takes new prompts, as many as the batch; `first` is the number of the first of them, for its
  // random stream. A graph that was captured stays.
  void start(const std::vector<std::vector<TokenId>>& prompts, int64_t first = 0);
  // A new token for every sequence; on CUDA it returns before the work is done.
  void step();
  // Steps until every sequence is finished. The host reads at every step if `on_token` wants it.
  void run(const DecodeOptions& options);

  // The new tokens of each sequence that the host has read.
  const std::vector<std::vector<TokenId>>& made() const { return made_; }
  bool captured() const { return graph_ != nullptr; }

 private:
  static constexpr int64_t kEagerSteps = 2;  // before the capture, so that every library is ready

  bool finished(int64_t row) const;
  void read(const DecodeOptions& options);  // tokens made since the last read
  void prefill();
  void feed(int64_t first, const std::vector<std::vector<TokenId>>& rows);
  void restart_full_rows();
  void compute();
  int64_t attended() const;  // places that the next step looks at

  Decoder& model_;
  SamplingOptions sampling_;
  const CudaRuntime* cuda_;  // null where nothing is captured
  int64_t batch_, longest_, first_ = 0;
  bool by_lengths_;
  KvCache cache_;
  bool weights_changed_ = true;
  at::Tensor token_;                               // int64 [B]: what the next step feeds
  at::Tensor made_device_;                         // int64 [B, max_tokens]
  at::Tensor uniform_;                             // float [max_tokens, B]
  at::Tensor steps_device_;                        // int64 [1]
  int64_t steps_ = 0, read_ = 0;                   // steps enqueued; of these, read by the host
  std::vector<int64_t> held_;                      // tokens of each sequence in the cache
  std::vector<std::vector<TokenId>> seen_, made_;  // prompt and tokens; tokens alone
  std::vector<char> stopped_;
  std::unique_ptr<CudaGraph> graph_;
  int64_t eager_steps_ = 0;
};

}  // namespace refract
