// The parts of a Hugging Face tokenizer.json, checked and made ready. What is not supported is
// refused by name; every error starts with `where`, the file.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe/bpe_model.h"
#include "text/pre_tokenizer.h"

namespace refract {

// null, NFC, or a Sequence of these; true where the text is normalized to NFC.
bool read_normalizer(const nlohmann::json& normalizer, const std::string& where);

// ByteLevel, Split, Digits, and Sequences of these whose last member is ByteLevel.
// `add_prefix_space`, where given, is ByteLevel's instead of the file's.
PreTokenizer read_pre_tokenizer(const nlohmann::json& pre_tokenizer, const std::string& where,
                                std::optional<bool> add_prefix_space = std::nullopt);

// null or ByteLevel.
void check_decoder(const nlohmann::json& decoder, const std::string& where);

struct BpeParts {
  std::unordered_map<std::string, TokenId> vocabulary;       // as the file spells the tokens
  std::unordered_map<std::string, TokenId> byte_vocabulary;  // the same in bytes, or characters
  std::vector<BpeModel::Merge> merges;
  BpeModel::Options options;
};

// Whether the model is BPE over characters, which falls back to bytes, and not over bytes.
bool falls_back_to_bytes(const nlohmann::json& model);

BpeParts read_bpe(const nlohmann::json& model, const std::string& where);

// `added_tokens` of the file, without ids.
std::vector<AddedToken> read_added_tokens(const nlohmann::json& added_tokens,
                                          const std::string& where);

}  // namespace refract
