// The arguments of a command, declared one by one: a thin layer over the command line parser, so
// that only its .cpp pays for the parser's headers.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace refract {

// Words as the parser takes them, which would cut what stands in brackets at its commas; and the
// word as it was typed.
std::string marked(const char* argument);
std::string as_typed(const std::string& argument);

// "types,layers" as two words.
std::vector<std::string> words_of(const std::string& text);
// "2%" or "0.02". Fails (usage) for other words; `option` names where they were typed.
double share_of(const std::string& option, const std::string& text);
// "0.3,0.7" as two numbers. Fails (usage) for other words; `option` names where they were typed.
std::vector<double> numbers_of(const std::string& option, const std::string& text);

// Declares one command's arguments. The variables are set before the command runs.
class CommandLine {
 public:
  explicit CommandLine(CLI::App& app) : app_(app) {}
  void positional(const std::string& name, std::string& value, const std::string& help,
                  bool required = true);
  void positional(const std::string& name, std::vector<std::string>& values,
                  const std::string& help, bool required = false);
  void option(const std::string& name, std::string& value, const std::string& help,
              bool required = false);
  void option(const std::string& name, std::vector<std::string>& values, const std::string& help,
              bool required = false);
  void option(const std::string& name, int64_t& value, const std::string& help);
  void option(const std::string& name, double& value, const std::string& help);
  void flag(const std::string& name, bool& value, const std::string& help);
  // Everything from the first word on that is no option of this command, options too.
  void rest(std::vector<std::string>& words, const std::string& help);

 private:
  CLI::App& app_;
};

}  // namespace refract
