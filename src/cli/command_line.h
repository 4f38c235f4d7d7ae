// A thin layer over the command line parser: only its .cpp pays for the parser's headers.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace refract {

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

struct Command {
  virtual ~Command() = default;
  virtual std::string name() const = 0;  // "train", or "tokenizer train" for a command of a group
  virtual std::string summary() const = 0;  // one line
  virtual std::string example() const = 0;  // works as it is in a checkout after make demo
  virtual void declare(CommandLine& line) = 0;
  // Whether it loads or builds models, and so takes --plugin.
  virtual bool uses_models() const { return true; }
  virtual int run() = 0;  // the exit code
};

// Parses and runs; prints one line for an error and returns the exit code.
int run_program(int argc, char** argv, const std::vector<std::unique_ptr<Command>>& commands);

}  // namespace refract
