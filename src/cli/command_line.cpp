#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string_view>

#include "core/error.h"
#include "core/progress.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

constexpr const char* kVersion = "refract 0.1.0";

int report(const std::string& message, ExitCode code) {
  clear_progress_line();
  std::fprintf(stderr, "refract: %s\n", message.c_str());
  return static_cast<int>(code);
}

// The app a command's name leads to: "tokenizer train" makes the group "tokenizer" first.
CLI::App* app_for(CLI::App& root, const Command& command,
                  std::map<std::string, CLI::App*>& groups) {
  const std::string name = command.name();
  const size_t space = name.find(' ');
  if (space == std::string::npos) return root.add_subcommand(name, command.summary());
  CLI::App*& group = groups[name.substr(0, space)];
  if (!group) {
    group = root.add_subcommand(name.substr(0, space),
                                "see refract " + name.substr(0, space) + " --help");
    group->require_subcommand(1);
  }
  return group->add_subcommand(name.substr(space + 1), command.summary());
}

// An example with the program as it was called, so that it can be pasted: "./refract train ...".
std::string as_typed(std::string example, const std::string& program) {
  constexpr std::string_view kName = "refract ";
  for (size_t at = 0; (at = example.find(kName, at)) != std::string::npos;) {
    const bool begins = at == 0 || example[at - 1] == ' ';
    if (begins) example.replace(at, kName.size() - 1, program);
    at += begins ? program.size() + 1 : kName.size();
  }
  return example;
}

int run_command(Command& command, const std::vector<std::string>& plugins) {
  try {
    for (const std::string& path : plugins) load_plugin(path);
    return command.run();
  } catch (const Error& error) {
    return report(error.what(), error.code());
  } catch (const std::bad_alloc&) {
    return report("out of memory; a smaller train.batch, train.micro_batch or model may fit",
                  ExitCode::kFailed);
  } catch (const std::exception& error) {
    const std::string text = error.what();  // torch puts a stack trace behind the first line
    return report(text.substr(0, text.find('\n')), ExitCode::kFailed);
  }
}

}  // namespace

void CommandLine::positional(const std::string& name, std::string& value, const std::string& help,
                             bool required) {
  app_.add_option(name, value, help)->required(required);
}
void CommandLine::positional(const std::string& name, std::vector<std::string>& values,
                             const std::string& help, bool required) {
  app_.add_option(name, values, help)->required(required);
}
void CommandLine::option(const std::string& name, std::string& value, const std::string& help,
                         bool required) {
  auto* option = app_.add_option(name, value, help)->required(required);
  if (!value.empty()) option->capture_default_str();
}
void CommandLine::option(const std::string& name, std::vector<std::string>& values,
                         const std::string& help, bool required) {
  // One value each time it is given: what follows it are key=value overrides.
  app_.add_option(name, values, help)->required(required)->allow_extra_args(false);
}
void CommandLine::option(const std::string& name, int64_t& value, const std::string& help) {
  app_.add_option(name, value, help)->capture_default_str();
}
void CommandLine::option(const std::string& name, double& value, const std::string& help) {
  app_.add_option(name, value, help)->capture_default_str();
}
void CommandLine::flag(const std::string& name, bool& value, const std::string& help) {
  app_.add_flag(name, value, help);
}

void CommandLine::rest(std::vector<std::string>& words, const std::string& help) {
  app_.prefix_command();
  app_.description(app_.get_description() + "\nAfter the options follows " + help);
  app_.parse_complete_callback([&app = app_, &words] { words = app.remaining(); });
}

int run_program(int argc, char** argv, const std::vector<std::unique_ptr<Command>>& commands) {
  CLI::App root(
      "Train, fine-tune and study transformer language models whose compute is transformed.\nStart "
      "with: refract train recipes/demo.toml run.dir=runs/first",
      "refract");
  root.set_version_flag("--version", kVersion);
  root.require_subcommand(1);
  root.footer("Each command has --help with an example that works in a checkout after make demo.");
  std::map<std::string, CLI::App*> groups;
  std::vector<std::pair<CLI::App*, Command*>> apps;
  std::vector<std::string> plugins;
  for (const auto& command : commands) {
    CLI::App* app = app_for(root, *command, groups);
    app->footer("Example:\n  " + as_typed(command->example(), argv[0]));
    CommandLine line(*app);
    command->declare(line);
    if (command->uses_models()) {
      line.option("--plugin", plugins,
                  "a shared object with further kinds of layers (scripts/plugin makes one); may be "
                  "given several times");
    }
    apps.emplace_back(app, command.get());
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return root.exit(asked);
  } catch (const CLI::ParseError& error) {
    return report(std::string(error.what()) + " (see refract --help)", ExitCode::kUsage);
  }
  for (const auto& [app, command] : apps) {
    if (app->parsed()) return run_command(*command, plugins);
  }
  return static_cast<int>(ExitCode::kUsage);
}

}  // namespace refract
