// The dialect in which a tokenizer.json writes its regular expressions, for PCRE2.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// Rewrites an expression from the dialect that Hugging Face's `tokenizers` runs (Oniguruma) into
// PCRE2's, so that \s, \w, \b and \h mean the same characters. Constructs whose meaning differs and
// can't be rewritten (nested classes, &&, possessive {n,m}+) are errors that name them.
std::string to_pcre2_dialect(std::string_view pattern);

}  // namespace refract
