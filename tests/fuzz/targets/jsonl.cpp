#include "data/source.h"
#include "fuzz/fuzz_target.h"

FUZZ_TARGET(jsonl) {
  static const refract::fuzz::Folder folder;
  const auto source =
      refract::open_source({folder.write("corpus.jsonl", text).string()}, {"text", 1});
  while (source->next()) {
  }
}
