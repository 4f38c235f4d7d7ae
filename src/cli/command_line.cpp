#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

#include "core/config.h"
#include "core/error.h"
#include "core/paths.h"
#include "core/system/outcome.h"
#include "core/version.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

// CLI11 takes the brackets off an argument in brackets and cuts what is in them at commas. A mark
// in front keeps it from doing so; as_typed() takes it off.
constexpr char kMark = '\x01';

std::string marked(const char* argument) {
  const std::string text = argument;
  const bool brackets = text.size() >= 2 && text.front() == '[' && text.back() == ']';
  return brackets ? kMark + text : text;
}

std::string as_typed(const std::string& argument) {
  return argument.starts_with(kMark) ? argument.substr(1) : argument;
}

// Whether an argument names files or folders: every positional but settings and the name of a kind.
bool names_path(const std::string& name) {
  for (const char* option : {"--out", "--data", "--tokenizer", "--plugin"}) {
    if (name == option) return true;
  }
  return !name.starts_with('-') && name != "overrides" && name != "kind";
}

std::string text_value(const std::string& name, const std::string& typed) {
  std::string text = as_typed(typed);
  if (!names_path(name)) return text;
  if (text.empty()) fail_usage("{} is empty; does it come from a variable that is not set?", name);
  return expand_path(text);
}

// The whole of a text as a number.
template <class T>
T number_value(const std::string& name, const std::string& typed) {
  const std::string text = as_typed(typed);
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (text.empty() || error != std::errc() || stop != end)
    fail_usage("{} takes a number, not '{}'", name, text);
  if (!std::isfinite(value)) fail_usage("{} takes a finite number, not '{}'", name, text);
  if constexpr (std::is_integral_v<T>) {
    T whole = 0;  // what has more digits than a double, too
    const auto [rest, wrong] = std::from_chars(begin, end, whole);
    if (wrong == std::errc() && rest == end) return whole;
    if (value != std::floor(value) || std::abs(value) > 9e15)
      fail_usage("{} takes an integer, not '{}'", name, text);
  }
  return static_cast<T>(value);
}

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

CLI::Option* add(CLI::App& app, const std::string& name, CLI::callback_t callback,
                 const std::string& help, const char* type) {
  return app.add_option(name, std::move(callback), help)->type_name(type);
}

CLI::callback_t into(const std::string& name, std::vector<std::string>& values) {
  return [name, &values](const CLI::results_t& given) {
    values.clear();
    for (const std::string& typed : given) values.push_back(text_value(name, typed));
    return true;
  };
}

CLI::callback_t into(const std::string& name, std::string& value) {
  return [name, &value](const CLI::results_t& given) {
    value = text_value(name, given.back());
    return true;
  };
}

template <class T>
void add_number(CLI::App& app, const std::string& name, T& value, const std::string& help,
                const char* type) {
  const auto read = [name, &value](const CLI::results_t& given) {
    value = number_value<T>(name, given.back());
    return true;
  };
  add(app, name, read, help, type)->default_str(fmt::format("{}", value));
}

}  // namespace

void CommandLine::positional(const std::string& name, std::string& value, const std::string& help,
                             bool required) {
  add(app_, name, into(name, value), help, "TEXT")->required(required);
}
void CommandLine::positional(const std::string& name, std::vector<std::string>& values,
                             const std::string& help, bool required) {
  add(app_, name, into(name, values), help, "TEXT")
      ->expected(CLI::detail::expected_max_vector_size)
      ->required(required);
}
void CommandLine::option(const std::string& name, std::string& value, const std::string& help,
                         bool required) {
  auto* option = add(app_, name, into(name, value), help, "TEXT")->required(required);
  if (!value.empty()) option->default_str(value);
}
void CommandLine::option(const std::string& name, std::vector<std::string>& values,
                         const std::string& help, bool required) {
  // One value each time it is given: what follows it are key=value overrides.
  add(app_, name, into(name, values), help, "TEXT")
      ->expected(CLI::detail::expected_max_vector_size)
      ->required(required)
      ->allow_extra_args(false);
}
void CommandLine::option(const std::string& name, int64_t& value, const std::string& help) {
  add_number(app_, name, value, help, "INT");
}
void CommandLine::option(const std::string& name, double& value, const std::string& help) {
  add_number(app_, name, value, help, "FLOAT");
}
void CommandLine::flag(const std::string& name, bool& value, const std::string& help) {
  app_.add_flag(name, value, help);
}

void CommandLine::rest(std::vector<std::string>& words, const std::string& help) {
  app_.prefix_command();
  app_.description(app_.get_description() + "\nAfter the options follows " + help);
  app_.parse_complete_callback([&app = app_, &words] {
    words.clear();
    for (const std::string& typed : app.remaining()) words.push_back(as_typed(typed));
  });
}

namespace {

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

int run_program(int argc, char** argv, const std::vector<std::unique_ptr<Command>>& commands) {
  CLI::App root(
      "Train, fine-tune and study transformer language models whose compute is transformed.\nStart "
      "with: refract train recipes/demo.toml run.dir=runs/first",
      "refract");
  root.set_version_flag("--version", std::string("refract ") + kVersion);
  root.require_subcommand(1);
  root.footer("Each command has --help with an example that works in a checkout after make demo.");
  std::map<std::string, CLI::App*> groups;
  std::vector<std::pair<CLI::App*, Command*>> apps;
  std::vector<std::string> plugins;
  for (const auto& command : commands) {
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
  const Parsed parsed = parse(root, arguments, commands, apps);
  if (!parsed.command) return finish_output(parsed.code);
  return finish_output(guarded([&] {
    for (const std::string& path : plugins) load_plugin(path);
    return parsed.command->run();
  }));
}

}  // namespace refract
