// Vocabulary files of the kind of GPT-2's: vocab.json and merges.txt.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// A tokenizer.json with the same vocabulary and merges, and the normalizer and pre-tokenizer that
// transformers' class (without "Fast"; empty: GPT-2's) has for such files. Fails for a class that
// is not known. `where` names the files in errors.
std::string gpt2_tokenizer_json(std::string_view vocab_json, std::string_view merges_txt,
                                const std::string& tokenizer_class, const std::string& where);

}  // namespace refract
