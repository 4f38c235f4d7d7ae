#include "data/split.h"

#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "text/utf8.h"

namespace refract {
namespace {

uint32_t split_draw(uint64_t seed, int64_t document) {
  return philox(philox_key(seed, stream_id("data.split")), 0, static_cast<uint64_t>(document))
      .word[0];
}

int64_t count_characters(std::string_view text) {
  int64_t count = 0;  // every byte but the continuation bytes 10xxxxxx begins a character
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

int64_t count_characters(DocumentSource& source) {
  int64_t count = 0;
  std::string storage;
  while (const auto document = source.next()) {
    count += count_characters(as_valid_utf8(document->text, storage));
  }
  return count;
}

[[noreturn]] void fail_empty(const std::string& name) {
  fail("the corpus '{}' is empty: there is no text in it", name);
}

void plan_characters(Split& split, DocumentSource& source, const std::string& name) {
  split.by_characters = true;
  source.rewind();
  const int64_t characters = count_characters(source);
  source.rewind();
  if (characters == 0) fail_empty(name);
  const double kept = (1 - split.fraction) * static_cast<double>(characters);
  split.train_characters = static_cast<int64_t>(kept);
}

void plan_documents(Split& split, DocumentSource& source, const std::string& name) {
  int64_t documents = 0, lowest = 0, highest = 0;
  bool training = false, validation = false;
  source.rewind();
  for (; !(training && validation) && source.next(); ++documents) {
    (split.in_validation(documents) ? validation : training) = true;
    const uint32_t draw = split_draw(split.seed, documents);
    if (draw < split_draw(split.seed, lowest)) lowest = documents;
    if (draw > split_draw(split.seed, highest)) highest = documents;
  }
  source.rewind();
  if (documents == 0) fail_empty(name);
  if (documents == 1) {
    log_info("'{}' is a single document: its last {:.3g}% of characters are kept for validation",
             name, 100 * split.fraction);
    plan_characters(split, source, name);
  } else if (!validation) {
    split.forced_validation = lowest;
  } else if (!training) {
    split.forced_train = highest;
  }
}

}  // namespace

bool Split::in_validation(int64_t document) const {
  if (document == forced_validation) return true;
  if (document == forced_train) return false;
  return static_cast<double>(split_draw(seed, document)) < fraction * 0x1.0p32;
}

Split plan_split(const DataConfig& config, DocumentSource& source, const std::string& name) {
  Split split;
  split.seed = static_cast<uint64_t>(config.seed);
  if (!config.validation.empty() || config.validation_fraction == 0) return split;
  split.fraction = config.validation_fraction;
  if (config.split == "characters") {
    plan_characters(split, source, name);
  } else if (config.split == "documents") {
    plan_documents(split, source, name);
  } else {
    fail_usage("data.split = \"{}\": it must be documents or characters", config.split);
  }
  return split;
}

bool collect_characters(DocumentSource& source, std::set<char32_t>& characters) {
  bool ascii[128] = {};
  std::string storage;
  int64_t documents = 0;
  source.rewind();
  while (const auto document = source.next()) {
    ++documents;
    const std::string_view text = as_valid_utf8(document->text, storage);
    for (size_t i = 0; i < text.size();) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte < 0x80) {
        ascii[byte] = true;
        ++i;
      } else {
        characters.insert(next_code_point(text, i));
      }
    }
  }
  source.rewind();
  for (char32_t c = 0; c < 128; ++c) {
    if (ascii[c]) characters.insert(c);
  }
  return documents > 1;
}

}  // namespace refract
