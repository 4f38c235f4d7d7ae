#include "core/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <system_error>

#include "core/error.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// Nothing for one that is not set or empty.
std::optional<std::string> variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

// Of the user of this process where `user` is empty.
std::optional<std::string> home_of(const std::string& user) {
  if (user.empty()) {
    if (auto home = variable("HOME")) return home;
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe): paths are expanded before there are threads
  const passwd* entry = user.empty() ? ::getpwuid(::getuid()) : ::getpwnam(user.c_str());
  if (entry == nullptr || entry->pw_dir == nullptr) return std::nullopt;
  return entry->pw_dir;
}

bool is_name_part(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// What `$` at `at` begins: the variable's name and the position behind it. No name: a plain sign.
struct Reference {
  std::string name;
  size_t end = 0;
};

Reference reference_at(const std::string& text, size_t at) {
  const bool braces = at + 1 < text.size() && text[at + 1] == '{';
  const size_t begin = at + (braces ? 2 : 1);
  size_t end = begin;
  while (end < text.size() && is_name_part(text[end])) ++end;
  const bool digit = begin < text.size() && std::isdigit(static_cast<unsigned char>(text[begin]));
  if (end == begin || digit) return {};
  if (braces && (end == text.size() || text[end] != '}')) return {};
  return {text.substr(begin, end - begin), end + (braces ? 1 : 0)};
}

// `strict`: what is not set is an error; else it stays as it is written.
std::string with_variables(const std::string& path, bool strict) {
  std::string out;
  for (size_t at = 0; at < path.size();) {
    const Reference found = path[at] == '$' ? reference_at(path, at) : Reference{};
    if (found.name.empty()) {
      out += path[at++];
      continue;
    }
    const auto value = variable(found.name);
    if (!value && strict) {
      fail_usage("'{}' names the environment variable {}, which is not set", path, found.name);
    }
    out += value ? *value : path.substr(at, found.end - at);
    at = found.end;
  }
  return out;
}

std::string with_home(const std::string& path, bool strict) {
  if (path.empty() || path[0] != '~') return path;
  const size_t end = std::min(path.find('/'), path.size());
  const std::string user = path.substr(1, end - 1);
  const auto home = home_of(user);
  if (home) return *home + path.substr(end);
  if (!strict) return path;
  if (user.empty()) fail_usage("'{}': HOME is not set, so ~ names no folder", path);
  fail_usage("'{}': there is no user '{}' whose home folder that could be", path, user);
}

std::optional<std::string> folder_variable(const std::string& name) {
  const auto value = variable(name);
  return value ? std::optional(with_variables(with_home(*value, false), false)) : std::nullopt;
}

}  // namespace

std::string expand_path(const std::string& path) {
  if (path.find('$') == std::string::npos && !path.starts_with('~')) return path;
  std::error_code ignored;
  if (!path.starts_with('~') && fs::exists(path, ignored)) return path;
  return with_variables(with_home(path, true), true);
}

fs::path user_cache() {
  if (const auto cache = folder_variable("XDG_CACHE_HOME")) return *cache;
  const auto home = home_of("");
  if (!home) fail("HOME is not set, so there is no place for a cache; set XDG_CACHE_HOME");
  return fs::path(*home) / ".cache";
}

fs::path hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto cache = folder_variable(name)) return *cache;
  }
  if (const auto home = folder_variable("HF_HOME")) return fs::path(*home) / "hub";
  return user_cache() / "huggingface" / "hub";
}

fs::path installed_file(const std::string& name) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  fs::path file = program.parent_path().parent_path() / name;
  return fs::is_regular_file(file, ignored) ? file : fs::path();
}

std::string shell_word(std::string_view text) {
  const auto plain = [](char c) {
    return is_name_part(c) || std::string_view("@%+=:,./-").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace refract
