#include "data/source_paths.h"

#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <mutex>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "data/files/compressed.h"
#include "data/files/hub_dataset.h"
#include "data/shard_folder.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKinds =
    ".txt (one document per file), .jsonl (one per line), both also as .gz or .zst, .parquet (one "
    "per row), or .bin (token shards)";

// What to do with files that are often met and not read; the longest ending counts.
constexpr std::pair<const char*, const char*> kAdvice[] = {
    {".bin.gz", "token shards are read in place: unpack it (gunzip)"},
    {".bin.zst", "token shards are read in place: unpack it (unzstd)"},
    {".json", "it is read with one object a line, as .jsonl: jq -c '.[]' x.json > x.jsonl"},
    {".json.gz", "it is read with one object a line, as .jsonl.gz"},
    {".json.zst", "it is read with one object a line, as .jsonl.zst"},
    {".npy", "write its numbers alone: a.astype('uint16').tofile('x.bin')"},
    {".npz", "write its numbers alone: a.astype('uint16').tofile('x.bin')"},
    {".csv", "pandas.read_csv(f).to_json('x.jsonl', orient='records', lines=True)"},
    {".tsv", "pandas.read_csv(f, sep='\\t').to_json('x.jsonl', orient='records', lines=True)"},
    {".arrow", "datasets.Dataset.from_file(f).to_json('x.jsonl')"},
    {".bz2", "unpack it, or pack it as .gz or .zst"},
    {".xz", "unpack it, or pack it as .gz or .zst"},
    {".lz4", "unpack it, or pack it as .gz or .zst"},
    {".gz", "the name in front of .gz must end in .txt or .jsonl"},
    {".zst", "the name in front of .zst must end in .txt or .jsonl"},
    {".tar.gz", "unpack it into a folder, which is read as it is"},
    {".tar.zst", "unpack it into a folder, which is read as it is"},
    {".tgz", "unpack it into a folder, which is read as it is"},
    {".tar", "unpack it into a folder, which is read as it is"},
    {".zip", "unpack it into a folder, which is read as it is"},
    {".md", "if it is to be read as plain text, let its name end in .txt"},
    {".html", "if it is to be read as plain text, let its name end in .txt"},
};

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

std::string advice_for(const fs::path& path) {
  const std::string name = lower(path.filename().string());
  std::string_view ending, advice;
  for (const auto& [of, text] : kAdvice) {
    if (!name.ends_with(of) || std::string_view(of).size() <= ending.size()) continue;
    ending = of;
    advice = text;
  }
  return advice.empty() ? "" : fmt::format(" ({})", advice);
}

bool is_text(CorpusKind kind) {
  return kind == CorpusKind::kText || kind == CorpusKind::kJsonLines ||
         kind == CorpusKind::kParquet;
}

bool is_validation_shard(const fs::path& path) {
  const std::string name = path.filename().string();
  return name == "val.bin" || name.find("_val_") != std::string::npos;
}

void add_file(const fs::path& path, SourcePaths& out) {
  if (is_text(corpus_kind(path))) {
    out.text.push_back(path.string());
  } else {
    (is_validation_shard(path) ? out.validation_shards : out.shards).push_back(path);
  }
}

// Says what is left out of a folder or glob: once, though a corpus is looked through several times.
void say_left_out(const std::vector<fs::path>& others, const std::string& name) {
  static std::set<std::string> said;
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (others.empty() || !said.insert(name).second) return;
  constexpr size_t kNamed = 5;
  std::string names;
  for (size_t i = 0; i < std::min(others.size(), kNamed); ++i)
    names += (i > 0 ? ", " : "") + others[i].filename().string();
  if (others.size() > kNamed) names += fmt::format(" and {} more", others.size() - kNamed);
  log_warning("'{}': left out: {}; a corpus is {}", name, names, kKinds);
}

// Adds the usable files among `files`, which a folder or glob `name` gave.
void add_found(const std::vector<fs::path>& files, const std::string& name, SourcePaths& out) {
  std::vector<fs::path> others;
  for (const fs::path& file : files) {
    if (is_unfinished_shard(file)) {
      fail_usage(
          "'{}' holds '{}': its token shards are not complete, since what makes them is still at "
          "work or was stopped; make them again (refract tokenize ... --out {})",
          name, file.filename().string(), file.parent_path().string());
    }
    const CorpusKind kind = corpus_kind(file);
    if (is_text(kind) || kind == CorpusKind::kShard) {
      add_file(file, out);
    } else {
      others.push_back(file);
    }
  }
  const bool none = others.size() == files.size();
  if (none) {
    const std::string first = others.empty() ? "" : others[0].filename().string();
    fail_usage("'{}' holds no {}{}", name, kKinds,
               first.empty() ? "" : fmt::format("; it has '{}'{}", first, advice_for(first)));
  }
  say_left_out(others, name);
}

// A tree of folders, each entered once: by its own name before a link to it.
class Tree {
 public:
  std::vector<fs::path> files;

  void enter(const fs::path& folder) {
    struct stat info {};
    if (::stat(folder.c_str(), &info) != 0 || !seen_.insert({info.st_dev, info.st_ino}).second)
      return;
    std::error_code error;
    std::vector<fs::path> folders, links;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      if (it->path().filename().string().starts_with('.')) continue;  // .git and the like
      add(*it, folders, links);
    }
    if (error) fail("can't read the folder '{}': {}", folder.string(), error.message());
    for (auto* found : {&folders, &links}) {
      std::sort(found->begin(), found->end());
      for (const fs::path& below : *found) enter(below);
    }
  }

 private:
  void add(const fs::directory_entry& entry, std::vector<fs::path>& folders,
           std::vector<fs::path>& links) {
    std::error_code error;
    const fs::file_status status = entry.status(error);  // of what a link leads to
    if (entry.is_symlink(error) && !fs::exists(status)) {
      fail_usage("'{}' is a link that leads nowhere; mend or remove it", entry.path().string());
    }
    if (fs::is_directory(status)) {
      (entry.is_symlink(error) ? links : folders).push_back(entry.path());
    } else if (fs::is_regular_file(status)) {
      files.push_back(entry.path());
    }
  }

  std::set<std::pair<dev_t, ino_t>> seen_;
};

std::vector<fs::path> files_below(const fs::path& folder) {
  Tree tree;
  tree.enter(folder);
  std::sort(tree.files.begin(), tree.files.end());
  return tree.files;
}

std::vector<fs::path> matches(const std::string& pattern) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_TILDE, nullptr, &found);
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);  // sorted by glob
  ::globfree(&found);
  if (status == GLOB_NOMATCH || paths.empty()) fail_usage("no file matches '{}'", pattern);
  return paths;
}

void check_kind(const fs::path& path) {
  if (corpus_kind(path) != CorpusKind::kOther) return;
  fail_usage("'{}' is not a kind of corpus that can be read{}: use {}", path.string(),
             advice_for(path), kKinds);
}

void add_path(const std::string& path, SourcePaths& out) {
  if (path.starts_with("stories:")) {
    parse_size(std::string_view(path).substr(8));
    out.text.push_back(path);
  } else if (fs::is_directory(path)) {
    add_found(files_below(path), path, out);
  } else if (fs::exists(path)) {
    check_kind(path);
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
  } else if (fs::is_symlink(path)) {
    fail_usage("'{}' is a link that leads nowhere; mend or remove it", path);
  } else if (const auto dataset = parse_hub_dataset(path);
             dataset && (corpus_kind(path) == CorpusKind::kOther || names_hub_dataset(path))) {
    for (const fs::path& file : hub_dataset_files(path, *dataset)) {
      check_kind(file);
      add_file(file, out);
    }
  } else {
    fail_usage("there is no file or folder '{}' to take a corpus from (stories:20MB makes one)",
               path);
  }
}

}  // namespace

CorpusKind corpus_kind(const fs::path& path) {
  const bool packed = is_compressed(path);
  const std::string extension = lower((packed ? path.stem() : path).extension().string());
  if (extension == ".txt" || extension == ".text") return CorpusKind::kText;
  for (const char* lines : {".jsonl", ".ndjson", ".jsonlines"}) {
    if (extension == lines) return CorpusKind::kJsonLines;
  }
  if (packed) return CorpusKind::kOther;
  if (extension == ".bin") return CorpusKind::kShard;
  return extension == ".parquet" ? CorpusKind::kParquet : CorpusKind::kOther;
}

SourcePaths expand_paths(const std::vector<std::string>& paths) {
  if (paths.empty())
    fail_usage("data.path does not name a corpus: give files, folders or stories:20MB");
  SourcePaths out;
  try {
    for (const std::string& path : paths) add_path(path, out);
  } catch (const fs::filesystem_error& error) {
    fail("can't read the corpus '{}': {}", error.path1().string(), error.code().message());
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
