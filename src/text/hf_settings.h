// What the files beside a tokenizer say of it, read as transformers' AutoTokenizer reads them:
// tokenizer_config.json with its added_tokens_decoder, special_tokens_map.json, added_tokens.json,
// and the class that these or the model's config.json name.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"

namespace refract {

// Name to bytes.
using TokenizerFiles = std::map<std::string, std::string>;

// The files of a tokenizer beside the one that holds its vocabulary; chat templates are carried
// along.
const std::vector<std::string>& tokenizer_side_files();

struct TokenizerSettings {
  // Of transformers, without "Fast"; empty where none is named, or one that takes a tokenizer.json
  // as it is.
  std::string tokenizer_class;
  // Tokens to add in this order behind those of the vocabulary's file. Those that are `implied`
  // are named by the class alone and count only where the vocabulary has them.
  std::vector<AddedToken> added, implied;
  std::optional<std::string> end_of_text;  // the eos token
  std::optional<bool> add_prefix_space;    // as tokenizer_config.json says
  bool legacy = false;                     // of a LlamaTokenizer
};

// `config_json`: the text of the model's config.json, or empty. `where` names the tokenizer in
// errors.
TokenizerSettings read_tokenizer_settings(const TokenizerFiles& files,
                                          const std::string& config_json, const std::string& where);

// Adds what the settings say and chooses the end-of-text token: theirs, else the first of the usual
// names that there is.
std::optional<std::string> add_special_tokens(const TokenizerSettings& settings,
                                              AddedVocabulary& vocabulary);

// Whether transformers' class has a ByteLevel pre-tokenizer of its own, whose add_prefix_space is
// the configuration's (false where that says nothing) and not that of tokenizer.json.
bool sets_prefix_space(const std::string& tokenizer_class);

// An entry of `added_tokens` or `added_tokens_decoder`, without its id.
AddedToken read_added_token(const nlohmann::json& entry, const std::string& where);

}  // namespace refract
