#include "data/source_paths.h"

#include <glob.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/log.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

enum class Kind { kText, kShard, kParquet, kOther };

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

Kind kind_of(const fs::path& path) {
  const std::string extension = lower(path.extension().string());
  if (extension == ".txt" || extension == ".jsonl") return Kind::kText;
  if (extension == ".bin") return Kind::kShard;
  return extension == ".parquet" ? Kind::kParquet : Kind::kOther;
}

[[noreturn]] void refuse_parquet(const std::string& name) {
  fail_usage(
      "'{}' holds Parquet files, which can't be read yet: convert them to .jsonl "
      "(pandas.read_parquet(f).to_json(g, orient=\"records\", lines=True))",
      name);
}

bool is_validation_shard(const fs::path& path) {
  const std::string name = path.filename().string();
  return name == "val.bin" || name.find("_val_") != std::string::npos;
}

void add_file(const fs::path& path, SourcePaths& out) {
  if (kind_of(path) == Kind::kText) {
    out.text.push_back(path.string());
  } else {
    (is_validation_shard(path) ? out.validation_shards : out.shards).push_back(path);
  }
}

// Adds the usable files among `files`, which a folder or glob `name` gave.
void add_found(const std::vector<fs::path>& files, const std::string& name, SourcePaths& out) {
  size_t used = 0, parquet = 0;
  for (const fs::path& file : files) {
    const Kind kind = kind_of(file);
    parquet += kind == Kind::kParquet;
    if (kind != Kind::kText && kind != Kind::kShard) continue;
    add_file(file, out);
    ++used;
  }
  if (used == 0 && parquet > 0) refuse_parquet(name);
  if (used == 0) fail_usage("'{}' holds no .txt, .jsonl or .bin file to take a corpus from", name);
  if (parquet > 0) {
    log_warning("'{}': {} Parquet files are left out; convert them to .jsonl to use them", name,
                parquet);
  }
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  auto it =
      fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink);
  for (const auto& entry : it) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.')) {  // .git, .cache and the like
      if (entry.is_directory()) it.disable_recursion_pending();
      continue;
    }
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> matches(const std::string& pattern) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_TILDE, nullptr, &found);
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);  // sorted by glob
  ::globfree(&found);
  if (status == GLOB_NOMATCH || paths.empty()) fail_usage("no file matches '{}'", pattern);
  return paths;
}

void add_path(const std::string& path, SourcePaths& out) {
  if (path.starts_with("stories:")) {
    parse_size(std::string_view(path).substr(8));
    out.text.push_back(path);
  } else if (fs::is_directory(path)) {
    add_found(files_below(path), path, out);
  } else if (fs::exists(path)) {
    const Kind kind = kind_of(path);
    if (kind == Kind::kParquet) refuse_parquet(path);
    if (kind == Kind::kOther) {
      fail_usage(
          "'{}' is not a kind of corpus that can be read: use .txt (one document per file), .jsonl "
          "(one per line) or .bin (token shards)",
          path);
    }
    add_file(path, out);
  } else if (path.find_first_of("*?[") != std::string::npos) {
    std::vector<fs::path> files;
    for (const fs::path& match : matches(path)) {
      if (fs::is_directory(match)) {
        const auto below = files_below(match);
        files.insert(files.end(), below.begin(), below.end());
      } else {
        files.push_back(match);
      }
    }
    add_found(files, path, out);
  } else {
    fail_usage("there is no file or folder '{}' to take a corpus from (stories:20MB makes one)",
               path);
  }
}

}  // namespace

SourcePaths expand_paths(const std::vector<std::string>& paths) {
  if (paths.empty())
    fail_usage("data.path does not name a corpus: give files, folders or stories:20MB");
  SourcePaths out;
  try {
    for (const std::string& path : paths) add_path(path, out);
  } catch (const fs::filesystem_error& error) {
    fail("can't read the corpus: {}", error.what());
  }
  if (out.is_shards() && !out.text.empty()) {
    const fs::path& shard = out.shards.empty() ? out.validation_shards[0] : out.shards[0];
    fail_usage("the corpus mixes text ('{}') and token shards ('{}'): give one or the other",
               out.text[0], shard.string());
  }
  return out;
}

int64_t parse_size(std::string_view text) {
  double value = 0;
  const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit = lower(std::string(rest, text.data() + text.size()));
  unit.erase(0, unit.find_first_not_of(' '));
  double scale = 0;
  if (unit.empty() || unit == "b") scale = 1;
  if (unit == "k" || unit == "kb") scale = 1e3;
  if (unit == "m" || unit == "mb") scale = 1e6;
  if (unit == "g" || unit == "gb") scale = 1e9;
  const double bytes = value * scale;
  if (status != std::errc() || !(bytes >= 1) || bytes > 1e15) {
    fail_usage("'{}' is not a size: write 300KB, 20MB, 1.5GB or a number of bytes", text);
  }
  return static_cast<int64_t>(std::llround(bytes));
}

}  // namespace refract
