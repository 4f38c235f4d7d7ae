#include "data/stories/write_stories.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/progress.h"
#include "data/files/compressed.h"
#include "data/source_paths.h"
#include "data/stories/stories.h"

namespace refract {
namespace {

struct Open {
  int fd;
  ~Open() { ::close(fd); }
};

// A story holds no characters that JSON escapes but quotes and line breaks.
std::string json_line(const std::string& story) {
  std::string line = "{\"text\": \"";
  for (char c : story) {
    if (c == '"' || c == '\\') line += '\\';
    if (c == '\n') {
      line += "\\n";
    } else {
      line += c;
    }
  }
  return line + "\"}\n";
}

[[noreturn]] void fail_to_write(const std::string& name) {
  fail("can't write the stories to '{}': {}", name,
       errno != 0 ? std::strerror(errno) : "is the disk full?");
}

// To the file `name`; empty: to standard output.
void write(std::ostream& out, uint64_t seed, int64_t bytes, bool jsonl, const std::string& name) {
  const StoryGenerator generator(seed);
  Progress progress("stories", bytes);
  int64_t done = 0;
  for (uint64_t i = 0; done < bytes; ++i) {
    const std::string story = generator.story(i);
    out << (jsonl ? json_line(story) : story + "\n\n");
    if (!out && name.empty()) return;  // standard output: who called looks at that for all commands
    if (!out) fail_to_write(name);
    done += static_cast<int64_t>(story.size());
    progress.update(std::min(done, bytes), "");
  }
}

}  // namespace

void write_stories(const std::string& path, uint64_t seed, int64_t bytes) {
  if (path.empty()) {
    write(std::cout, seed, bytes, false, "");
    return;
  }
  if (is_compressed(path)) {
    fail_usage(
        "--out {} has a compressed file's name, and stories are written as they are: pack "
        "them afterwards (gzip, zstd)",
        path);
  }
  // Under its name only once it is whole: a part of a corpus looks like a corpus.
  std::filesystem::path partial;
  const int made = open_partial(path, partial);
  if (made < 0) fail("can't write '{}': {}; does its folder exist?", path, std::strerror(errno));
  // Open until the file has its name: who removes what killed processes left sees that this lives.
  const Open held{made};
  try {
    std::ofstream file(partial, std::ios::binary);
    if (!file) fail_to_write(path);
    write(file, seed, bytes, corpus_kind(path) == CorpusKind::kJsonLines, path);
    file.close();
    if (!file) fail_to_write(path);
    sync_path(partial);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) fail("can't write '{}': {}", path, error.message());
}

}  // namespace refract
