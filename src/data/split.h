// Which documents, or which characters, of a corpus are kept for validation.
#pragma once
#include <cstdint>
#include <set>

#include "data/config.h"
#include "data/source.h"

namespace refract {

struct Split {
  bool by_characters = false;
  double fraction = 0;  // kept for validation; 0: nothing
  uint64_t seed = 1;
  int64_t train_characters = 0;                       // by characters: these come first
  int64_t forced_validation = -1, forced_train = -1;  // a document of a corpus of few

  // By documents: a keyed draw for the document's index alone, so that the corpus can be streamed.
  bool in_validation(int64_t document) const;
};

// Decides the split. By documents it reads only until both sides have one, and sees to it that each
// gets one where there are two or more; a single document is split by characters, with a message.
// By characters it counts: the first int((1 - fraction) * n) code points are for training. Rewinds
// the source. Fails, naming `name`, when there is no text at all.
Split plan_split(const DataConfig& config, DocumentSource& source, const std::string& name);

// Adds the code points of all documents; true where there was more than one document.
bool collect_characters(DocumentSource& source, std::set<char32_t>& characters);

}  // namespace refract
