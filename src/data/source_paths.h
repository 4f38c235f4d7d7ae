// What the paths of a corpus stand for: files, folders, globs, "stories:20MB", and data sets of the
// Hub.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

// The parts of a list of paths: text to tokenize, or token shards to use as they are.
struct SourcePaths {
  std::vector<std::string> text;                         // files and "stories:SIZE", in order
  std::vector<std::filesystem::path> shards;             // of training, or all of them
  std::vector<std::filesystem::path> validation_shards;  // val.bin, *_val_*.bin
  bool is_shards() const { return !shards.empty() || !validation_shards.empty(); }
};

// What the name of a file says that it holds; case does not matter, and text may be compressed
// (.txt.gz, .jsonl.zst). .text is .txt; .ndjson and .jsonlines are .jsonl.
enum class CorpusKind { kText, kJsonLines, kShard, kParquet, kOther };
CorpusKind corpus_kind(const std::filesystem::path& path);

// Expands folders (recursively, sorted by name, every folder once however many links lead to it),
// globs, and where there is no such file the name of a data set ("org/name", files/hub_dataset.h).
// What a folder or glob holds beside a corpus is said once. Fails for a path that is
// missing, a link that leads nowhere, a folder with unfinished shards, a glob or folder without a
// usable file, an unknown kind of file (with what to do for those that are often met), and a mix of
// text and shards.
SourcePaths expand_paths(const std::vector<std::string>& paths);

// Bytes of "20MB", "1.5 GB", "300KB" or "12345" (powers of ten).
int64_t parse_size(std::string_view text);

}  // namespace refract
