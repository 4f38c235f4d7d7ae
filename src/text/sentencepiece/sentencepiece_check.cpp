#include "text/sentencepiece/sentencepiece_check.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/untrusted.h"
#include "text/sentencepiece/proto_fields.h"
#include "text/utf8.h"

namespace refract {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint64_t kPieces = 1, kNormalizer = 3, kDenormalizer = 5;  // of ModelProto
constexpr uint64_t kText = 1, kScore = 2, kType = 3;                 // of a piece
constexpr uint64_t kCharsMap = 2;                                    // of a normalizer
constexpr uint64_t kBytePiece = 6;                                   // a type

// The normalizer's table: the size of a trie, the trie, then texts that end in a zero byte. Every
// unit that some text may lead to must lie inside of the trie, and every value inside of the texts.
class CharsMap {
 public:
  CharsMap(std::string_view blob, const std::string& where) : where_(where) {
    uint32_t bytes = 0;
    if (blob.size() <= sizeof(bytes)) damaged("it is too short");
    std::memcpy(&bytes, blob.data(), sizeof(bytes));
    if (bytes % sizeof(uint32_t) != 0 || bytes < sizeof(uint32_t) ||
        bytes >= blob.size() - sizeof(bytes)) {
      damaged("its size is wrong");
    }
    units_.resize(bytes / sizeof(uint32_t));
    std::memcpy(units_.data(), blob.data() + sizeof(bytes), bytes);
    texts_ = blob.size() - sizeof(bytes) - bytes;
    if (blob.back() != '\0') damaged("its last text has no end");
  }

  // Walks through all nodes, as the library's search would from each text.
  void check() const {
    std::vector<bool> seen(units_.size());
    std::vector<uint64_t> open = {offset(units_[0])};
    while (!open.empty()) {
      const uint64_t base = open.back();
      open.pop_back();
      // The search looks at base ^ byte for the byte of the text, whatever it is.
      if ((base | 0xff) >= units_.size()) damaged("it leads out of itself");
      for (uint64_t byte = 0; byte < 256; ++byte) {
        const uint64_t at = base ^ byte;
        const uint32_t unit = units_[at];
        if ((unit & 0x800000ff) != byte || seen[at]) continue;
        seen[at] = true;
        const uint64_t child = at ^ offset(unit);
        if ((unit >> 8 & 1) != 0) check_value(child);
        open.push_back(child);
      }
    }
  }

 private:
  [[noreturn]] void damaged(const char* how) const {
    fail("{}: the table of the SentencePiece model's normalizer is damaged: {}", where_, how);
  }
  static uint64_t offset(uint32_t unit) {
    return static_cast<uint64_t>(unit >> 10) << ((unit & (1u << 9)) >> 6);
  }
  void check_value(uint64_t at) const {
    if (at >= units_.size() || (units_[at] & 0x7fffffff) >= texts_)
      damaged("it names a text that it does not hold");
  }

  const std::string& where_;
  std::vector<uint32_t> units_;
  uint64_t texts_ = 0;  // bytes
};

bool is_byte_name(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
         text.substr(3, 2).find_first_not_of("0123456789ABCDEF") == std::string_view::npos;
}

void check_piece(std::string_view message, const std::string& where) {
  ProtoFields fields(message, where);
  std::string_view text;
  uint64_t type = 1;
  float score = 0;
  while (const auto field = fields.next()) {
    if (field->number == kText && field->is_bytes) text = field->bytes;
    if (field->number == kType) type = field->value;
    if (field->number == kScore) std::memcpy(&score, &field->value, sizeof(score));
  }
  if (text.empty() || !is_valid_utf8(text) || text.find('\0') != std::string_view::npos)
    fail("{}: the SentencePiece model has a piece that is no text: '{}'", where, shown(text));
  if (!std::isfinite(score))
    fail("{}: the score of the piece '{}' is not a number", where, shown(text));
  if (type == kBytePiece && !is_byte_name(text))
    fail("{}: the byte piece '{}' is not <0x00> to <0xFF>", where, shown(text));
}

void check_normalizer(std::string_view message, const std::string& where) {
  ProtoFields fields(message, where);
  while (const auto field = fields.next()) {
    if (field->number == kCharsMap && field->is_bytes && !field->bytes.empty())
      CharsMap(field->bytes, where).check();
  }
}

}  // namespace

void check_sentencepiece(std::string_view model, const std::string& where) {
  ProtoFields fields(model, where);
  int64_t pieces = 0;
  while (const auto field = fields.next()) {
    if (field->number == kPieces) {
      check_piece(field->bytes, where);
      ++pieces;
    } else if (field->number == kNormalizer || field->number == kDenormalizer) {
      check_normalizer(field->bytes, where);
    }
  }
  if (pieces == 0) fail("{}: not a SentencePiece model: it has no pieces", where);
}

}  // namespace refract
