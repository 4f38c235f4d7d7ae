#include "text/gguf/gguf_pieces.h"

#include <algorithm>
#include <cstring>

#include "text/gguf/gguf_tokenizer.h"
#include "text/sentencepiece/proto_fields.h"

namespace refract {
namespace {

// Field numbers of sentencepiece_model.proto, and the kind of model that GGUF has.
enum ModelField : uint64_t { kModelPiece = 1, kModelTrainer = 2, kModelNormalizer = 3 };
enum PieceField : uint64_t { kPieceText = 1, kPieceScore = 2, kPieceType = 3 };
enum TrainerField : uint64_t {
  kTrainerType = 3,
  kTrainerSize = 4,
  kTrainerByteFallback = 35,
  kTrainerUnknownId = 40,
  kTrainerBosId = 41,
  kTrainerEosId = 42,
  kTrainerPadId = 43,
  kTrainerUnknown = 45,
  kTrainerBos = 46,
  kTrainerEos = 47
};
enum NormalizerField : uint64_t {
  kNormalizerName = 1,
  kNormalizerTable = 2,
  kNormalizerPrefix = 3,
  kNormalizerExtraSpaces = 4
};
constexpr uint64_t kBpeModel = 2;

void put_varint(std::string& out, uint64_t value) {
  for (; value > 0x7f; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  out += static_cast<char>(value);
}

void put_number(std::string& out, uint64_t field, uint64_t value) {
  put_varint(out, field << 3);
  put_varint(out, value);
}

void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

std::string piece_message(const GgufPiece& piece) {
  std::string message;
  put_bytes(message, kPieceText, piece.text);
  put_varint(message, kPieceScore << 3 | 5);
  message.append(reinterpret_cast<const char*>(&piece.score), sizeof(piece.score));
  put_number(message, kPieceType, static_cast<uint64_t>(piece.type));
  return message;
}

std::string trainer_message(const GgufPieces& pieces) {
  std::string message;
  put_number(message, kTrainerType, kBpeModel);
  put_number(message, kTrainerSize, pieces.pieces.size());
  const bool bytes = std::any_of(pieces.pieces.begin(), pieces.pieces.end(),
                                 [](const GgufPiece& piece) { return piece.type == kGgufByte; });
  put_number(message, kTrainerByteFallback, bytes ? 1 : 0);
  constexpr auto kNone = static_cast<uint64_t>(-1);
  const auto put_special = [&](std::optional<int64_t> id, uint64_t number, uint64_t name) {
    put_number(message, number, id ? static_cast<uint64_t>(*id) : kNone);
    if (id) put_bytes(message, name, pieces.pieces[static_cast<size_t>(*id)].text);
  };
  put_special(pieces.unknown, kTrainerUnknownId, kTrainerUnknown);
  put_special(pieces.bos, kTrainerBosId, kTrainerBos);
  put_special(pieces.eos, kTrainerEosId, kTrainerEos);
  put_number(message, kTrainerPadId, kNone);
  return message;
}

GgufPiece read_piece(std::string_view message, const std::string& where) {
  GgufPiece piece;
  ProtoFields fields(message, where);
  while (const auto field = fields.next()) {
    if (field->number == kPieceText) piece.text = field->bytes;
    if (field->number == kPieceScore) std::memcpy(&piece.score, &field->value, sizeof(float));
    if (field->number == kPieceType) piece.type = static_cast<int32_t>(field->value);
  }
  return piece;
}

uint64_t trainer_type(std::string_view message, const std::string& where) {
  uint64_t type = 1;  // unigram
  ProtoFields fields(message, where);
  while (const auto field = fields.next()) {
    if (field->number == kTrainerType) type = field->value;
  }
  return type;
}

// False where it has a table.
bool read_normalizer_message(std::string_view message, const std::string& where,
                             GgufPieces& pieces) {
  bool plain = true;
  ProtoFields fields(message, where);
  while (const auto field = fields.next()) {
    if (field->number == kNormalizerTable) plain = field->bytes.empty();
    if (field->number == kNormalizerPrefix) pieces.add_space_prefix = field->value != 0;
    if (field->number == kNormalizerExtraSpaces) pieces.remove_extra_spaces = field->value != 0;
  }
  return plain;
}

}  // namespace

std::string sentencepiece_model(const GgufPieces& pieces) {
  std::string model;
  for (const GgufPiece& piece : pieces.pieces) put_bytes(model, kModelPiece, piece_message(piece));
  put_bytes(model, kModelTrainer, trainer_message(pieces));
  std::string normalizer;
  put_bytes(normalizer, kNormalizerName, "identity");
  put_number(normalizer, kNormalizerPrefix, pieces.add_space_prefix ? 1 : 0);
  put_number(normalizer, kNormalizerExtraSpaces, pieces.remove_extra_spaces ? 1 : 0);
  put_bytes(model, kModelNormalizer, normalizer);
  return model;
}

std::optional<GgufPieces> read_sentencepiece_model(std::string_view model,
                                                   const std::string& where) {
  GgufPieces pieces;
  pieces.remove_extra_spaces = true;  // the library's default
  uint64_t type = 1;
  bool plain = true;
  ProtoFields fields(model, where);
  while (const auto field = fields.next()) {
    if (field->number == kModelPiece) pieces.pieces.push_back(read_piece(field->bytes, where));
    if (field->number == kModelTrainer) type = trainer_type(field->bytes, where);
    if (field->number == kModelNormalizer)
      plain = read_normalizer_message(field->bytes, where, pieces);
  }
  if (type != kBpeModel || !plain) return std::nullopt;
  return pieces;
}

}  // namespace refract
