#include "text/sentencepiece/proto_fields.h"

#include <cstring>

#include "core/error.h"

namespace refract {

std::optional<ProtoField> ProtoFields::next() {
  if (rest_.empty()) return std::nullopt;
  const uint64_t tag = varint();
  ProtoField field;
  field.number = tag >> 3;
  switch (tag & 7) {
    case 0:
      field.value = varint();
      break;
    case 1:
      std::memcpy(&field.value, take(8).data(), 8);
      break;
    case 2:
      field.bytes = take(varint());
      field.is_bytes = true;
      break;
    case 5:
      std::memcpy(&field.value, take(4).data(), 4);
      break;
    default:
      damaged();
  }
  return field;
}

void ProtoFields::damaged() const {
  fail("{}: not a SentencePiece model, or a damaged one", where_);
}

std::string_view ProtoFields::take(uint64_t length) {
  if (length > rest_.size()) damaged();
  const std::string_view part = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return part;
}

uint64_t ProtoFields::varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(take(1)[0]);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  damaged();
}

}  // namespace refract
