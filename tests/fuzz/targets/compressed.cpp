#include "data/source.h"
#include "fuzz/fuzz_target.h"

// The first byte says as what the rest is read: g and z as lines (.jsonl.gz, .jsonl.zst), others as
// text (.txt.gz, .txt.zst).
FUZZ_TARGET(compressed) {
  static const refract::fuzz::Folder folder;
  if (text.empty()) return;
  const char kind = text.front();
  const std::string name = kind == 'g'   ? "corpus.jsonl.gz"
                           : kind == 'z' ? "corpus.jsonl.zst"
                           : kind == 't' ? "corpus.txt.gz"
                                         : "corpus.txt.zst";
  const auto source =
      refract::open_source({folder.write(name, text.substr(1)).string()}, {"text", 1});
  while (source->next()) {
  }
}
