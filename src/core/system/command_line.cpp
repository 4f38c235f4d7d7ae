#include "core/system/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string_view>

#include "core/config.h"
#include "core/error.h"
#include "core/system/outcome.h"

namespace refract {
namespace {

// The app a command's name leads to: "tokenizer train" makes the group "tokenizer" first.
CLI::App* app_for(CLI::App& root, const Command& command,
                  std::map<std::string, CLI::App*>& groups) {
  const std::string name = command.name();
  const size_t space = name.find(' ');
  if (space == std::string::npos) return root.add_subcommand(name, command.summary());
  CLI::App*& group = groups[name.substr(0, space)];
  if (!group) {
    group = root.add_subcommand(name.substr(0, space), command.summary());
    group->require_subcommand(1);
  }
  CLI::App* app = group->add_subcommand(name.substr(space + 1), command.summary());
  const std::vector<CLI::App*> members =
      group->get_subcommands([](CLI::App* /*any*/) { return true; });
  std::string what = members.front()->get_name();
  for (size_t i = 1; i < members.size(); ++i) what += ", " + members[i]->get_name();
  group->description(members.size() > 1 ? what : what + ": " + command.summary());
  return app;
}

// An example with the program as it was called, so that it can be pasted: "./refract train ...".
std::string with_program(std::string example, const std::string& program) {
  constexpr std::string_view kName = "refract ";
  for (size_t at = 0; (at = example.find(kName, at)) != std::string::npos;) {
    const bool begins = at == 0 || example[at - 1] == ' ';
    if (begins) example.replace(at, kName.size() - 1, program);
    at += begins ? program.size() + 1 : kName.size();
  }
  return example;
}

// Fails for a first word (or a second one, in a group) that is no command, with the nearest one.
void check_command(const std::vector<std::string>& arguments,
                   const std::vector<std::unique_ptr<Command>>& commands) {
  if (arguments.empty() || arguments[0].starts_with('-')) return;
  std::vector<std::string> firsts, members;
  for (const auto& command : commands) {
    const std::string name = command->name();
    const size_t space = name.find(' ');
    firsts.push_back(name.substr(0, space));
    if (space != std::string::npos && firsts.back() == arguments[0])
      members.push_back(name.substr(space + 1));
  }
  if (std::find(firsts.begin(), firsts.end(), arguments[0]) == firsts.end()) {
    fail_usage("there is no command '{}'; did you mean '{}'? refract --help lists them all",
               arguments[0], nearest_name(arguments[0], firsts));
  }
  if (members.empty() || arguments.size() < 2 || arguments[1].starts_with('-')) return;
  if (std::find(members.begin(), members.end(), arguments[1]) == members.end()) {
    fail_usage("there is no command '{} {}'; did you mean '{} {}'?", arguments[0], arguments[1],
               arguments[0], nearest_name(arguments[1], members));
  }
}

// The options that a command has, for the nearest one to what was typed.
std::string unknown_argument(const CLI::App& root) {
  const CLI::App* app = &root;
  std::string command = "refract";
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  const std::vector<std::string> extra = root.remaining(true);
  const std::string argument = extra.empty() ? "" : as_typed(extra.front());
  std::string text = fmt::format("{} does not take '{}'", command, argument);
  std::vector<std::string> names;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  if (argument.starts_with('-') && !names.empty()) {
    text += fmt::format("; did you mean {}?",
                        nearest_name(argument.substr(0, argument.find('=')), names));
  }
  return text + fmt::format(" (see {} --help)", command);
}

struct Parsed {
  Command* command = nullptr;  // null: `code` is the answer
  int code = 0;
};

Parsed parse(CLI::App& root, const std::vector<std::string>& arguments,
             const std::vector<std::unique_ptr<Command>>& commands,
             const std::vector<std::pair<CLI::App*, Command*>>& apps) {
  try {
    check_command(arguments, commands);
    std::vector<std::string> from_the_back(arguments.rbegin(), arguments.rend());
    root.parse(std::move(from_the_back));
  } catch (const Error& error) {
    return {nullptr, report_failure(error.what(), error.code())};
  } catch (const CLI::Success& asked) {  // --help, --version
    return {nullptr, root.exit(asked)};
  } catch (const CLI::ExtrasError&) {
    return {nullptr, report_failure(unknown_argument(root), ExitCode::kUsage)};
  } catch (const CLI::ParseError& error) {
    return {nullptr,
            report_failure(std::string(error.what()) + " (see refract --help)", ExitCode::kUsage)};
  }
  for (const auto& [app, command] : apps) {
    if (app->parsed()) return {command, 0};
  }
  return {nullptr, static_cast<int>(ExitCode::kUsage)};
}

}  // namespace

int run_program(int argc, char** argv, const Program& program) {
  CLI::App root(
      "Train, fine-tune and study transformer language models whose compute is transformed.\nStart "
      "with: refract train recipes/demo.toml run.dir=runs/first",
      "refract");
  root.set_version_flag("--version", program.version);
  root.require_subcommand(1);
  root.footer("Each command has --help with an example that works in a checkout after make demo.");
  std::map<std::string, CLI::App*> groups;
  std::vector<std::pair<CLI::App*, Command*>> apps;
  std::vector<std::string> plugins;
  for (const auto& command : program.commands) {
    CLI::App* app = app_for(root, *command, groups);
    app->footer("Example:\n  " + with_program(command->example(), argv[0]));
    CommandLine line(*app);
    command->declare(line);
    if (command->uses_models()) {
      line.option("--plugin", plugins,
                  "a shared object with further kinds of layers (scripts/plugin makes one); may be "
                  "given several times");
    }
    apps.emplace_back(app, command.get());
  }
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) arguments.push_back(marked(argv[i]));
  const Parsed parsed = parse(root, arguments, program.commands, apps);
  if (!parsed.command) return finish_output(parsed.code);
  return finish_output(guarded([&] {
    for (const std::string& path : plugins) program.load_plugin(path);
    return parsed.command->run();
  }));
}

}  // namespace refract
