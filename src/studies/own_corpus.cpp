#include "studies/own_corpus.h"

#include "core/error.h"

namespace refract {

void require_corpus(const LoadedModel& loaded, const std::vector<std::string>& overrides,
                    const std::vector<std::string>& data) {
  if (!data.empty() || has_own_corpus(loaded.folder, overrides)) return;
  fail_usage(
      "'{}' is not a run and has no corpus of its own; give one with --data, e.g. --data "
      "my.txt",
      loaded.folder.string());
}

}  // namespace refract
