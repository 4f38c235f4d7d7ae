// What a model folder says and holds beside its weights, its tokenizer and the settings that
// refract understands. A copy of the model keeps it: special ids, generation settings, further keys
// of config.json, and side files.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "formats/hf_config.h"
#include "text/tokenizer.h"

namespace refract {

struct Carried {
  std::string config;                        // text of config.json; empty: there is nothing to keep
  std::string generation;                    // bytes of generation_config.json; empty: none
  std::map<std::string, std::string> files;  // name to bytes

  // Forgets ids and generation settings: they belong to a tokenizer that gave way to another.
  void drop_tokenizer();
  // The ids that end a text: those of generation_config.json, else of config.json.
  std::vector<int64_t> eos() const;
};

// What the folder holds. Left out are weights of any format, the tokenizer's files (it saves them),
// files of refract's own, hidden ones, and, with a warning, those above 64 MiB.
Carried read_carried(const std::filesystem::path& folder);

// Puts what is carried into the tree of a config.json that is written in `format`: the ids as the
// folder had them, and the keys that the tree lacks where the folder's was of the same format.
void carry_config(nlohmann::json& tree, const Carried& carried, const std::string& format);

// The family that holds a model of this configuration: that of the folder it came from where it
// still can, since several may (a Mistral without a window is a Llama too), else hf_family()'s.
HfFamily carried_family(const ModelConfig& config, const Carried& carried);

// Writes the side files.
void write_side_files(const Carried& carried, const std::filesystem::path& folder);

// The ids of a model whose documents are parted by the tokenizer's end of text.
TokenIds ids_of(const Tokenizer& tokenizer);

// The tokens at which generation ends: those that are carried, and the tokenizer's end of text.
std::vector<TokenId> stop_tokens(const Carried& carried, const Tokenizer& tokenizer);

}  // namespace refract
