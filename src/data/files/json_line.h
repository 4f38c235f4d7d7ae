// The text of one line of a .jsonl file, read as Python's json module reads it.
#pragma once
#include <string>
#include <string_view>

namespace refract {

// The value of the key `field` of the object that is the whole of `line`, decoded to UTF-8; where
// it has no key "a.b" that is the key b of its object a. As in Python, NaN and Infinity are
// numbers, and of a key that stands twice the last one counts. A surrogate without its other half
// becomes U+FFFD; bytes that are not UTF-8 stay as they are. Fails with what is wrong and at which
// character (from 1); `where` ("a.jsonl:7") stands in front.
std::string json_line_text(std::string_view line, const std::string& field,
                           const std::string& where);

}  // namespace refract
