#include "data/shards.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
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

// The width of the numbers in bytes without a header, where they are plainly not tokens of 16 bits:
// every second 16-bit word is the upper half of an id below 2^18, and the others vary. 0: they may
// be such tokens.
int wider_numbers(std::span<const std::byte> head, uint64_t file_bytes) {
  constexpr size_t kLooked = 1024, kFewest = 64;  // pairs of words
  constexpr uint16_t kLargestUpper = 3;
  const size_t pairs = std::min(head.size() / 4, kLooked);
  if (file_bytes % 4 != 0 || pairs < kFewest) return 0;
  std::set<uint16_t> lower, lower_of_odd;
  for (size_t i = 0; i < pairs; ++i) {
    uint16_t words[2];
    std::memcpy(words, head.data() + 4 * i, sizeof(words));
    if (words[1] > kLargestUpper) return 0;
    (i % 2 == 0 ? lower : lower_of_odd).insert(words[0]);
  }
  const bool upper_words = file_bytes % 8 == 0 && lower_of_odd == std::set<uint16_t>{0};
  return lower.size() <= kLargestUpper + 1 ? 0 : upper_words ? 64 : 32;
}

ShardLayout raw_layout(std::span<const std::byte> head, uint64_t file_bytes,
                       const std::filesystem::path& path) {
  if (const int bits = wider_numbers(head, file_bytes); bits > 0) {
    fail(
        "'{}' is not a token shard: it holds {}-bit numbers and no header of llm.c's, and without "
        "one tokens have 16 bits; write them as a.astype('uint16').tofile('x.bin'), or with the "
        "header where ids are above 65535",
        path.string(), bits);
  }
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
  if (head.size() < sizeof(int32_t)) return raw_layout(head, file_bytes, path);
  const int32_t magic = header_word(head, 0);
  if (magic != kMagic16 && magic != kMagic32) return raw_layout(head, file_bytes, path);
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
  partial_ = current_;
  partial_ += ".partial";
  ::unlink(partial_.c_str());  // what a stopped writer left
  fd_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
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
