// Streams of tokens: shards, memory-mapped, or tokens in memory.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace refract {

// A part of a stream, and its weight among the parts when training windows are drawn.
struct TokenShare {
  int64_t tokens = 0;
  double weight = 1;
};

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
  // The corpora that it is made of, in order (mix/mixture.h); most streams are one.
  virtual std::vector<TokenShare> shares() const { return {{size(), 1}}; }
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

}  // namespace refract
