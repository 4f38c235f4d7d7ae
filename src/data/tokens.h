// Token shards, memory-mapped, and the windows that training and evaluation cut from them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace refract {

// A sequence of token ids in one or more shards: nanoGPT's raw uint16 `.bin`, or llm.c's with a
// header (16 and 32 bit). Reading is thread-safe; resident memory stays flat however long one
// reads.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  virtual int64_t size() const = 0;
  // Copies tokens [begin, begin + out.size()), which must lie inside the stream.
  virtual void read(int64_t begin, std::span<int32_t> out) const = 0;
  // The largest id (scanned once, then remembered); 0 for an empty stream. A slice answers for the
  // whole that it was cut from.
  virtual int32_t max_token() const = 0;
};

// Opens shards in the given order as one stream. The format is told from the header.
std::shared_ptr<TokenStream> open_shards(const std::vector<std::filesystem::path>& paths);
// Tokens held in memory (tests, small corpora).
std::shared_ptr<TokenStream> make_token_stream(std::vector<int32_t> tokens);
// Tokens [begin, end) of another stream, as one of its own.
std::shared_ptr<TokenStream> slice_stream(std::shared_ptr<const TokenStream> whole, int64_t begin,
                                          int64_t end);

// Fails, naming the shard's largest id and the vocabulary, when a model can't read these tokens.
void check_tokens(const TokenStream& stream, int64_t vocab_size, const std::string& name);

// The order in which training windows are visited: epoch by epoch a keyed permutation of all
// windows, without replacement. Stateless: sequence number g of a run is found in O(1), whatever
// the world size or batch.
class WindowOrder {
 public:
  // Windows of context + 1 tokens (inputs and targets shifted by one) that start `context` tokens
  // apart. Each epoch shifts all starts by a keyed offset, over a whole context where the stream is
  // long enough, so that every token is reached and stands at every place of a window in turn.
  // Fails if the stream has fewer than context + 1 tokens.
  WindowOrder(int64_t num_tokens, int64_t context, uint64_t seed);
  int64_t windows_per_epoch() const { return windows_; }
  // First token of the g-th window of the run (g >= 0).
  int64_t start(int64_t g) const;

 private:
  int64_t windows_, context_, slack_;
  uint64_t seed_;
};

// A keyed permutation of [0, n): a Feistel network with cycle walking.
uint64_t permute_index(uint64_t index, uint64_t n, uint64_t seed, uint64_t epoch);

}  // namespace refract
