// What is wrong with JSON that a library could not read, in our words.
#pragma once
#include <exception>
#include <string>

namespace refract {

// Of an exception of nlohmann/json: "it is cut off: its JSON ends early", "line 3, column 7 is no
// JSON", or that a value has another form than it should; of any other exception its own text.
std::string json_trouble(const std::exception& error);

}  // namespace refract
