#include "data/tokens.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>

#include "core/error.h"
#include "core/files.h"
#include "data/shards.h"

namespace refract {
namespace {

// Bytes of a stream that may stay mapped before they are handed back to the system.
constexpr int64_t kResidentBytes = 64 << 20;
// What one read at a new place may map: a large page of the page cache, not just its own bytes.
constexpr int64_t kMappedAtOnce = 2 << 20;

// Lanes of independent maxima, so that the compiler makes vector code of it.
template <class T>
uint32_t largest(const T* tokens, int64_t count) {
  constexpr int64_t kLanes = 64;
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] = std::max(lanes[j], tokens[i + j]);
  }
  T result = *std::max_element(lanes, lanes + kLanes);
  for (; i < count; ++i) result = std::max(result, tokens[i]);
  return result;
}

class Shard {
 public:
  explicit Shard(const std::filesystem::path& path)
      : path_(path),
        file_(path),
        layout_(read_shard_layout(file_.bytes(), file_.bytes().size(), path)) {}

  int64_t size() const { return layout_.tokens; }

  void read(int64_t begin, std::span<int32_t> out) const {
    if (layout_.token_bytes == 2) {
      const uint16_t* in = data<uint16_t>() + begin;
      for (size_t i = 0; i < out.size(); ++i) out[i] = in[i];
    } else {
      std::memcpy(out.data(), data<int32_t>() + begin, out.size_bytes());
    }
    used_.store(true, std::memory_order_relaxed);
  }

  // A reader in another thread merely maps its page again, from the page cache.
  void release() const {
    if (used_.exchange(false, std::memory_order_relaxed)) file_.release(0, file_.bytes().size());
  }

  uint32_t max_token() const {
    constexpr int64_t kChunk = 4 << 20;  // tokens
    uint32_t result = 0;
    for (int64_t i = 0; i < size(); i += kChunk) {
      const int64_t count = std::min(kChunk, size() - i);
      result = std::max(result, layout_.token_bytes == 2 ? largest(data<uint16_t>() + i, count)
                                                         : largest(data<uint32_t>() + i, count));
      file_.release(0, (layout_.offset +
                        static_cast<size_t>(i + count) * static_cast<size_t>(layout_.token_bytes)));
    }
    if (result > std::numeric_limits<int32_t>::max()) {
      fail(
          "the token shard '{}' holds the id {}, which no vocabulary has: it is damaged, or not a "
          "shard",
          path_.string(), result);
    }
    return result;
  }

 private:
  template <class T>
  const T* data() const {
    return reinterpret_cast<const T*>(file_.bytes().data() + layout_.offset);
  }

  std::filesystem::path path_;
  MappedFile file_;
  ShardLayout layout_;
  mutable std::atomic<bool> used_{false};  // since the last release
};

void check_range(int64_t begin, size_t count, int64_t size) {
  if (begin < 0 || begin > size || static_cast<int64_t>(count) > size - begin) {
    fail("tokens [{}, {}) were asked of a stream that has {}", begin,
         begin + static_cast<int64_t>(count), size);
  }
}

class ShardStream : public TokenStream {
 public:
  explicit ShardStream(const std::vector<std::filesystem::path>& paths) {
    for (const auto& path : paths) {
      shards_.push_back(std::make_unique<Shard>(path));
      ends_.push_back(size() + shards_.back()->size());
    }
  }

  int64_t size() const override { return ends_.empty() ? 0 : ends_.back(); }

  void read(int64_t begin, std::span<int32_t> out) const override {
    check_range(begin, out.size(), size());
    touched(begin, static_cast<int64_t>(out.size()));
    auto end = std::upper_bound(ends_.begin(), ends_.end(), begin);
    for (size_t s = static_cast<size_t>(end - ends_.begin()); !out.empty(); ++s) {
      const int64_t first = s == 0 ? 0 : ends_[s - 1];
      const size_t count = std::min(out.size(), static_cast<size_t>(ends_[s] - begin));
      shards_[s]->read(begin - first, out.first(count));
      out = out.subspan(count);
      begin += static_cast<int64_t>(count);
    }
  }

  int32_t max_token() const override {
    std::call_once(scanned_, [&] {
      for (const auto& shard : shards_) {
        max_token_ = std::max(max_token_, static_cast<int32_t>(shard->max_token()));
      }
    });
    return max_token_;
  }

 private:
  // Counts what a read may map, and lets all pages go each time that makes kResidentBytes.
  void touched(int64_t begin, int64_t count) const {
    constexpr int64_t kNear = kMappedAtOnce / 2;  // tokens of at least two bytes
    const int64_t gap = begin - last_end_.exchange(begin + count, std::memory_order_relaxed);
    const bool goes_on = gap >= 0 && gap < kNear;
    const int64_t mapped = 4 * (goes_on ? gap + count : count) + (goes_on ? 0 : kMappedAtOnce);
    if (mapped_.fetch_add(mapped, std::memory_order_relaxed) + mapped < kResidentBytes) return;
    mapped_.store(0, std::memory_order_relaxed);
    for (const auto& shard : shards_) shard->release();
  }

  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<int64_t> ends_;  // tokens up to and with each shard
  mutable std::atomic<int64_t> mapped_{0}, last_end_{0};
  mutable std::once_flag scanned_;
  mutable int32_t max_token_ = 0;
};

class MemoryStream : public TokenStream {
 public:
  explicit MemoryStream(std::vector<int32_t> tokens) : tokens_(std::move(tokens)) {
    for (const int32_t token : tokens_) {
      if (token < 0) fail("a token stream can't hold the negative id {}", token);
      max_token_ = std::max(max_token_, token);
    }
  }
  int64_t size() const override { return static_cast<int64_t>(tokens_.size()); }
  void read(int64_t begin, std::span<int32_t> out) const override {
    check_range(begin, out.size(), size());
    std::copy_n(tokens_.begin() + begin, out.size(), out.begin());
  }
  int32_t max_token() const override { return max_token_; }

 private:
  std::vector<int32_t> tokens_;
  int32_t max_token_ = 0;
};

class SliceStream : public TokenStream {
 public:
  SliceStream(std::shared_ptr<const TokenStream> whole, int64_t begin, int64_t end)
      : whole_(std::move(whole)), begin_(begin), size_(end - begin) {}
  int64_t size() const override { return size_; }
  void read(int64_t begin, std::span<int32_t> out) const override {
    check_range(begin, out.size(), size_);
    whole_->read(begin_ + begin, out);
  }
  // Of the whole: the two parts of a corpus must fit the same vocabulary anyway, and are scanned
  // once.
  int32_t max_token() const override { return whole_->max_token(); }

 private:
  std::shared_ptr<const TokenStream> whole_;
  int64_t begin_, size_;
};

}  // namespace

std::shared_ptr<TokenStream> open_shards(const std::vector<std::filesystem::path>& paths) {
  return std::make_shared<ShardStream>(paths);
}

std::shared_ptr<TokenStream> make_token_stream(std::vector<int32_t> tokens) {
  return std::make_shared<MemoryStream>(std::move(tokens));
}

std::shared_ptr<TokenStream> slice_stream(std::shared_ptr<const TokenStream> whole, int64_t begin,
                                          int64_t end) {
  if (begin < 0 || begin > end || end > whole->size()) {
    fail("a slice [{}, {}) was asked of a stream of {} tokens", begin, end, whole->size());
  }
  return std::make_shared<SliceStream>(std::move(whole), begin, end);
}

void check_tokens(const TokenStream& stream, int64_t vocab_size, const std::string& name) {
  if (stream.size() == 0) return;
  const int32_t max = stream.max_token();
  if (max < vocab_size) return;
  fail(
      "{} holds the token {}, but the model's vocabulary has {} (0 to {}): the tokens were made "
      "with another tokenizer, or the tokenizer has tokens that the model was never given",
      name, max, vocab_size, vocab_size - 1);
}

}  // namespace refract
