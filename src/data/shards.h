// The files that hold token ids: reading their headers and writing them.
//
// llm.c's layout: 256 little-endian int32 ([0] magic, [1] version, [2] number of tokens), then the
// tokens: 16 bit (magic 20240520, version 1) or 32 bit (20240801, 7). nanoGPT's has no header: raw
// 16-bit tokens. The magic number tells them apart.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace refract {

inline constexpr size_t kShardHeaderBytes = 1024;
inline constexpr int64_t kTokensPerShard = 100'000'000;

struct ShardLayout {
  size_t offset = 0;    // bytes before the first token
  int token_bytes = 2;  // 2 or 4
  int64_t tokens = 0;
};

// Reads the layout from a file's bytes (or just its head, with the whole size given). Fails, naming
// `path`, when the version is unknown or the header's count is not what the file holds, and for
// numbers of 32 or 64 bits without a header.
ShardLayout read_shard_layout(std::span<const std::byte> head, uint64_t file_bytes,
                              const std::filesystem::path& path);

// Token width that a vocabulary needs.
inline int token_bytes_for(int64_t vocab_size) { return vocab_size <= 65536 ? 2 : 4; }

// Writes a stream of tokens as llm.c shards `<folder>/<stem>_000000.bin`, `_000001.bin`, ... of at
// most `tokens_per_shard` tokens. A shard stands under its name only once it is complete: it is
// written as `.bin.partial`, flushed and renamed. Unfinished ones are removed by the destructor.
// One writer at a time has the folder.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path folder, std::string stem, int token_bytes,
              int64_t tokens_per_shard = kTokensPerShard);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void append(std::span<const int32_t> tokens);  // fails for an id that is too wide
  // Completes the last shard and returns all files, in order. Nothing appended: no file.
  std::vector<std::filesystem::path> finish();
  int64_t tokens() const { return total_; }

 private:
  void open_next();
  void close_current();
  void flush();

  std::filesystem::path folder_;
  std::string stem_;
  int token_bytes_;
  int64_t tokens_per_shard_, total_ = 0, in_shard_ = 0;
  int fd_ = -1;
  std::filesystem::path current_, partial_;
  std::vector<std::filesystem::path> done_;
  std::vector<std::byte> buffer_;  // not written yet
};

}  // namespace refract
