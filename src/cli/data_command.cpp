#include "core/system/command_line.h"
#include "data/source_paths.h"
#include "data/stories/write_stories.h"

namespace refract {
namespace {

class StoriesCommand : public Command {
 public:
  std::string name() const override { return "data stories"; }
  std::string summary() const override {
    return "Write generated English stories, as text or as one JSON object per line";
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
  int run() override {
    write_stories(out_, static_cast<uint64_t>(seed_), parse_size(size_));
    return 0;
  }

 private:
  std::string size_ = "1MB", out_;
  int64_t seed_ = 1;
};

}  // namespace

std::unique_ptr<Command> make_data_stories_command() { return std::make_unique<StoriesCommand>(); }

}  // namespace refract
