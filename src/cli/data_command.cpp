#include <cstdio>
#include <fstream>
#include <iostream>

#include "cli/commands.h"
#include "core/error.h"
#include "core/progress.h"
#include "data/source_paths.h"
#include "data/stories/stories.h"

namespace refract {
namespace {

class StoriesCommand : public Command {
 public:
  std::string name() const override { return "data stories"; }
  std::string summary() const override {
    return "Write generated English stories, one a line of text or JSON";
  }
  std::string example() const override {
    return "refract data stories --size 20MB --out stories.jsonl";
  }
  bool uses_models() const override { return false; }
  void declare(CommandLine& line) override {
    line.option("--size", size_, "how much text: 500KB, 20MB, 1GB");
    line.option("--seed", seed_, "the same seed gives the same stories");
    line.option("--out", out_, "a .jsonl or .txt file; standard output if not given");
  }
  int run() override;

 private:
  void write(std::ostream& out, bool jsonl) const;
  std::string size_ = "1MB", out_;
  int64_t seed_ = 1;
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

void StoriesCommand::write(std::ostream& out, bool jsonl) const {
  const int64_t wanted = parse_size(size_);
  const StoryGenerator generator(static_cast<uint64_t>(seed_));
  Progress progress("stories", wanted);
  int64_t done = 0;
  for (uint64_t i = 0; done < wanted; ++i) {
    const std::string story = generator.story(i);
    out << (jsonl ? json_line(story) : story + "\n\n");
    if (!out)
      fail("can't write the stories to '{}'; is the disk full?",
           out_.empty() ? "standard output" : out_);
    done += static_cast<int64_t>(story.size());
    progress.update(std::min(done, wanted), "");
  }
}

int StoriesCommand::run() {
  if (out_.empty()) {
    write(std::cout, false);
    return 0;
  }
  std::ofstream file(out_, std::ios::binary);
  if (!file) fail("can't write '{}'; does its folder exist?", out_);
  write(file, out_.ends_with(".jsonl"));
  file.flush();
  if (!file) fail("can't write the stories to '{}'; is the disk full?", out_);
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_data_stories_command() { return std::make_unique<StoriesCommand>(); }

}  // namespace refract
