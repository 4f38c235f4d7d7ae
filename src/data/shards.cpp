#include "data/shards.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/foreign_bytes.h"

namespace refract {
namespace {

static_assert(std::endian::native == std::endian::little,
              "shards are read and written as they are");

constexpr size_t kBufferBytes = 1 << 20;
constexpr int32_t kMagic16 = 20240520, kVersion16 = 1;
constexpr int32_t kMagic32 = 20240801, kVersion32 = 7;

int32_t header_word(std::span<const std::byte> head, size_t index) {
  int32_t word;
  std::memcpy(&word, head.data() + index * sizeof(word), sizeof(word));
  return word;
}

ShardLayout raw_layout(uint64_t file_bytes, const std::filesystem::path& path) {
  if (file_bytes % 2 != 0) {
    fail(
        "'{}' is not a token shard: it has no header of llm.c's, and {} bytes are not a whole "
        "number of 16-bit tokens as nanoGPT writes them",
        path.string(), file_bytes);
  }
  return {0, 2, static_cast<int64_t>(file_bytes / 2)};
}

}  // namespace

ShardLayout read_shard_layout(std::span<const std::byte> head, uint64_t file_bytes,
                              const std::filesystem::path& path) {
  if (file_bytes == 0) fail("the token shard '{}' is empty", path.string());
  const char* begin = reinterpret_cast<const char*>(head.data());
  refuse_foreign_bytes(path, {begin, std::min<size_t>(head.size(), kShardHeaderBytes)},
                       "a token shard");
  if (head.size() < sizeof(int32_t)) return raw_layout(file_bytes, path);
  const int32_t magic = header_word(head, 0);
  if (magic != kMagic16 && magic != kMagic32) return raw_layout(file_bytes, path);
  if (head.size() < kShardHeaderBytes || file_bytes < kShardHeaderBytes) {
    fail("the token shard '{}' is cut off: {} bytes, and its header alone has {}", path.string(),
         file_bytes, kShardHeaderBytes);
  }
  const int32_t version = header_word(head, 1), tokens = header_word(head, 2);
  const int32_t expected = magic == kMagic16 ? kVersion16 : kVersion32;
  if (version != expected) {
    fail("the token shard '{}' has version {}; with magic number {} it must be {}", path.string(),
         version, magic, expected);
  }
  const int token_bytes = magic == kMagic16 ? 2 : 4;
  const uint64_t held = file_bytes - kShardHeaderBytes;
  if (tokens < 0 || static_cast<uint64_t>(tokens) * static_cast<uint64_t>(token_bytes) != held) {
    fail(
        "the token shard '{}' is damaged: its header says {} tokens of {} bytes, but {} bytes "
        "follow; make it again",
        path.string(), tokens, token_bytes, held);
  }
  return {kShardHeaderBytes, token_bytes, tokens};
}

ShardWriter::ShardWriter(std::filesystem::path folder, std::string stem, int token_bytes,
                         int64_t tokens_per_shard)
    : folder_(std::move(folder)),
      stem_(std::move(stem)),
      token_bytes_(token_bytes),
      tokens_per_shard_(tokens_per_shard) {
  if (tokens_per_shard < 1 || tokens_per_shard > std::numeric_limits<int32_t>::max()) {
    fail_usage("{} tokens per shard: it must be 1 to {}", tokens_per_shard,
               std::numeric_limits<int32_t>::max());
  }
}

ShardWriter::~ShardWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(partial_.c_str());
}

void ShardWriter::open_next() {
  current_ = folder_ / fmt::format("{}_{:06}.bin", stem_, done_.size());
  fd_ = open_partial(current_, partial_);
  if (fd_ < 0) fail("can't write '{}': {}", current_.string(), std::strerror(errno));
  in_shard_ = 0;
  buffer_.assign(kShardHeaderBytes, std::byte{0});
}

void ShardWriter::flush() {
  std::span<const std::byte> rest = buffer_;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("can't write '{}': {}", current_.string(), std::strerror(errno));
    rest = rest.subspan(static_cast<size_t>(n));
  }
  buffer_.clear();
}

void ShardWriter::append(std::span<const int32_t> tokens) {
  const uint32_t largest = token_bytes_ == 2 ? 0xffff : 0x7fffffff;
  while (!tokens.empty()) {
    if (fd_ < 0) open_next();
    const size_t room = static_cast<size_t>(tokens_per_shard_ - in_shard_);
    const std::span<const int32_t> part = tokens.first(std::min(room, tokens.size()));
    const size_t before = buffer_.size();
    buffer_.resize(before + part.size() * static_cast<size_t>(token_bytes_));
    uint32_t seen = 0;
    for (size_t i = 0; i < part.size(); ++i) {
      const auto id = static_cast<uint32_t>(part[i]);
      seen = std::max(seen, id);
      std::memcpy(buffer_.data() + before + i * static_cast<size_t>(token_bytes_), &id,
                  static_cast<size_t>(token_bytes_));
    }
    if (seen > largest) {
      fail("token {} does not fit the {}-bit shard '{}'", static_cast<int32_t>(seen),
           8 * token_bytes_, current_.string());
    }
    if (buffer_.size() >= kBufferBytes) flush();
    in_shard_ += static_cast<int64_t>(part.size());
    total_ += static_cast<int64_t>(part.size());
    tokens = tokens.subspan(part.size());
    if (in_shard_ == tokens_per_shard_) close_current();
  }
}

void ShardWriter::close_current() {
  const int32_t header[3] = {token_bytes_ == 2 ? kMagic16 : kMagic32,
                             token_bytes_ == 2 ? kVersion16 : kVersion32,
                             static_cast<int32_t>(in_shard_)};
  flush();
  const auto length = static_cast<ssize_t>(sizeof(header));
  const bool good = ::pwrite(fd_, header, sizeof(header), 0) == length && ::fsync(fd_) == 0 &&
                    ::rename(partial_.c_str(), current_.c_str()) == 0;
  if (!good) fail("can't write '{}': {}", current_.string(), std::strerror(errno));
  ::close(std::exchange(fd_, -1));
  done_.push_back(current_);
}

std::vector<std::filesystem::path> ShardWriter::finish() {
  if (fd_ >= 0) close_current();
  return done_;
}

}  // namespace refract
