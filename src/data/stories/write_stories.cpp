#include "data/stories/write_stories.h"

#include <algorithm>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "core/progress.h"
#include "data/stories/stories.h"

namespace refract {
namespace {

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
  fail("can't write the stories to '{}'; is the disk full?", name);
}

void write(std::ostream& out, uint64_t seed, int64_t bytes, bool jsonl, const std::string& name) {
  const StoryGenerator generator(seed);
  Progress progress("stories", bytes);
  int64_t done = 0;
  for (uint64_t i = 0; done < bytes; ++i) {
    const std::string story = generator.story(i);
    out << (jsonl ? json_line(story) : story + "\n\n");
    if (!out) fail_to_write(name);
    done += static_cast<int64_t>(story.size());
    progress.update(std::min(done, bytes), "");
  }
}

}  // namespace

void write_stories(const std::string& path, uint64_t seed, int64_t bytes) {
  if (path.empty()) {
    write(std::cout, seed, bytes, false, "standard output");
    return;
  }
  std::ofstream file(path, std::ios::binary);
  if (!file) fail("can't write '{}'; does its folder exist?", path);
  write(file, seed, bytes, path.ends_with(".jsonl"), path);
  file.flush();
  if (!file) fail_to_write(path);
}

}  // namespace refract
