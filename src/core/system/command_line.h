// What a command is, and how the program finds the one that was typed.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/system/arguments.h"

namespace refract {

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

struct Program {
  std::string version;  // what --version prints
  std::vector<std::unique_ptr<Command>> commands;
  // Called with each --plugin before a command runs that takes them.
  std::function<void(const std::string& path)> load_plugin;
};

// Parses and runs; prints one line for an error and returns the exit code.
int run_program(int argc, char** argv, const Program& program);

}  // namespace refract
