// GPT-2's own vocabulary files, vocab.json and merges.txt.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// A tokenizer.json with the same vocabulary and merges. `where` names the files in errors.
std::string gpt2_tokenizer_json(std::string_view vocab_json, std::string_view merges_txt,
                                const std::string& where);

}  // namespace refract
