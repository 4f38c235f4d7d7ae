#include "data/files/hub_dataset.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/untrusted.h"
#include "data/files/compressed.h"
#include "data/source_paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNamed = 10;  // of a list in a message

constexpr std::pair<std::string_view, std::string_view> kSplitWords[] = {
    {"train", "train"}, {"training", "train"},   {"validation", "validation"},
    {"test", "test"},   {"valid", "validation"}, {"val", "validation"},
    {"eval", "test"},   {"evaluation", "test"},  {"dev", "validation"},
    {"testing", "test"}};

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// The split that the whole of `word` stands for; empty for another word.
std::string split_of_word(std::string_view word) {
  for (const auto& [name, split] : kSplitWords) {
    if (word == name) return std::string(split);
  }
  return "";
}

// The first of a name's words that stands for a split; words are parted by what is no letter.
std::string split_in(std::string_view name) {
  const std::string text = lowered(name);
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && std::isalpha(static_cast<unsigned char>(text[end]))) ++end;
    if (const std::string split = split_of_word(std::string_view(text).substr(at, end - at));
        !split.empty())
      return split;
    at = end + 1;
  }
  return "";
}

// A file's name without what only says its kind: "corpus.train" of "corpus.train.jsonl.gz".
std::string without_kind(const fs::path& file) {
  const fs::path name = file.filename();
  return (is_compressed(name) ? name.stem() : name).stem().string();
}

// One of several files that make a whole: "train-00000-of-00002.parquet".
struct Numbered {
  std::string name;  // "train"
  int64_t count = 0;
};

std::optional<Numbered> numbered(const fs::path& file) {
  constexpr size_t kTail = 15;  // "-00000-of-00002"
  const std::string stem = without_kind(file);
  if (stem.size() <= kTail) return std::nullopt;
  const std::string tail = stem.substr(stem.size() - kTail);
  const bool digits =
      (tail.substr(1, 5) + tail.substr(10)).find_first_not_of("0123456789") == std::string::npos;
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !digits) return std::nullopt;
  return Numbered{stem.substr(0, stem.size() - kTail), std::stoll(tail.substr(10))};
}

struct Piece {
  fs::path file;
  fs::path relative;  // below what is looked through
  std::string split;  // empty: none is named
};

// "train_sft-00000-of-00003" is a split of its own.
std::string split_of(const fs::path& relative) {
  if (const auto part = numbered(relative); part && !split_in(part->name).empty()) {
    const bool one_word = std::all_of(part->name.begin(), part->name.end(), [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
    });
    const std::string whole = split_of_word(lowered(part->name));
    if (one_word) return whole.empty() ? part->name : whole;
  }
  std::string found = split_in(without_kind(relative));
  for (fs::path folder = relative.parent_path(); found.empty() && !folder.empty();
       folder = folder.parent_path())
    found = split_in(folder.filename().string());
  return found;
}

std::vector<Piece> pieces_below(const fs::path& place) {
  std::vector<Piece> pieces;
  for (fs::recursive_directory_iterator it(place), end; it != end; ++it) {
    if (it->path().filename().string().starts_with('.')) {
      if (it->is_directory()) it.disable_recursion_pending();
      continue;
    }
    if (!it->is_regular_file()) continue;  // of what a link leads to
    const fs::path relative = it->path().lexically_relative(place);
    pieces.push_back({it->path(), relative, split_of(relative)});
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.file < b.file; });
  return pieces;
}

// Those of the first kind that there is.
std::vector<Piece> of_best_kind(const std::vector<Piece>& all) {
  for (const CorpusKind kind : {CorpusKind::kParquet, CorpusKind::kJsonLines, CorpusKind::kText}) {
    std::vector<Piece> of_kind;
    for (const Piece& piece : all) {
      if (corpus_kind(piece.file) == kind) of_kind.push_back(piece);
    }
    if (!of_kind.empty()) return of_kind;
  }
  return {};
}

// Whether a file is data of a kind that is not read: a text beside it may be no more than a
// licence.
bool is_other_data(const fs::path& file) {
  const fs::path name = lowered(file.filename().string());
  if (name == "dataset_infos.json" || name == "dataset_info.json") return false;
  const fs::path ending = (is_compressed(name) ? name.stem() : name).extension();
  return ending == ".csv" || ending == ".tsv" || ending == ".json" || ending == ".arrow";
}

// The name of a data set without the split, to which a part may be added.
std::string without_split(const std::string& name) { return name.substr(0, name.find(':')); }

void check_text_is_meant(const std::string& name, const std::vector<Piece>& all,
                         const std::vector<Piece>& chosen) {
  if (corpus_kind(chosen[0].file) != CorpusKind::kText) return;
  const auto other = std::find_if(all.begin(), all.end(),
                                  [](const Piece& piece) { return is_other_data(piece.file); });
  if (other == all.end()) return;
  const std::string text = shown(chosen[0].relative.string());
  fail_usage(
      "the data set '{}' has '{}', which can't be read, and beside it only text ('{}'), which may "
      "be no more than notes: turn the data into .jsonl, or name the text that is meant: {}/{}",
      name, shown(other->relative.string()), text, without_split(name), text);
}

std::string listed(const std::set<std::string>& names) {
  std::vector<std::string> first(
      names.begin(),
      std::next(names.begin(), static_cast<ptrdiff_t>(std::min(names.size(), kNamed))));
  std::string text = fmt::format("{}", fmt::join(first, ", "));
  if (names.size() > kNamed) text += fmt::format(" and {} more", names.size() - kNamed);
  return shown(text, 500);
}

// The folder of a file, without those that only name the split.
std::string subset_of(const Piece& piece) {
  fs::path folder;
  for (const fs::path& name : piece.relative.parent_path()) {
    if (split_of_word(lowered(name.string())).empty()) folder /= name;
  }
  return folder.string();
}

std::vector<Piece> of_split(const std::string& name, const HubDataset& dataset,
                            std::vector<Piece> pieces) {
  std::set<std::string> splits;
  for (const Piece& piece : pieces) splits.insert(piece.split);
  splits.erase("");
  if (splits.empty() && dataset.split == "train") return pieces;
  std::string wanted = split_of_word(lowered(dataset.split));
  if (wanted.empty() || splits.contains(dataset.split)) wanted = dataset.split;
  if (!splits.contains(wanted)) {
    const std::string base = without_split(name);
    const auto unnamed = std::find_if(pieces.begin(), pieces.end(),
                                      [](const Piece& piece) { return piece.split.empty(); });
    fail_usage("the data set '{}' has no split '{}'{}{}", name, dataset.split,
               splits.empty() ? ": its files name none"
                              : fmt::format("; it has {}: write {}:{}", listed(splits), base,
                                            shown(*splits.begin())),
               splits.empty() || unnamed == pieces.end()
                   ? ""
                   : fmt::format(", or take a file that names none: {}/{}", base,
                                 shown(unnamed->relative.string())));
  }
  std::erase_if(pieces, [&](const Piece& piece) { return piece.split != wanted; });
  return pieces;
}

void check_one_subset(const std::string& name, const std::vector<Piece>& pieces) {
  std::set<std::string> subsets;
  for (const Piece& piece : pieces) subsets.insert(subset_of(piece));
  if (subsets.size() < 2) return;
  const std::string base = without_split(name);
  const std::string named = *std::find_if(subsets.begin(), subsets.end(),
                                          [](const std::string& text) { return !text.empty(); });
  fail_usage("the data set '{}' has several parts ({}): name one or more of them: {}/{}{}", name,
             listed(subsets), base, shown(named), name.substr(base.size()));
}

// Whether this has not been said before: a corpus is looked through several times.
bool first_time(const std::string& saying) {
  static std::set<std::string> said;
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  return said.insert(saying).second;
}

// Names, once, what is not read: files of other kinds, and those that name no split beside
// `of_kind` that do. A card that describes the data set is in every one.
void say_left_out(const std::string& name, const std::vector<Piece>& all,
                  const std::vector<Piece>& of_kind) {
  const CorpusKind kind = corpus_kind(of_kind[0].file);
  const bool splits = std::any_of(of_kind.begin(), of_kind.end(),
                                  [](const Piece& piece) { return !piece.split.empty(); });
  std::set<std::string> others;
  for (const Piece& piece : all) {
    const bool left = corpus_kind(piece.file) != kind || (splits && piece.split.empty());
    if (left && piece.relative != "README.md") others.insert(piece.relative.string());
  }
  if (others.empty()) return;
  const std::string saying = fmt::format(
      "the data set '{}': left out: {}; read are files of one kind, the first of .parquet, .jsonl "
      "and .txt that it has{}",
      name, listed(others), splits ? ", and of these the ones that name the split" : "");
  if (first_time(saying)) log_warning("{}", saying);
}

// Says, once, what a download left out of the files that count each other.
void say_missing(const std::string& name, const std::vector<Piece>& pieces) {
  std::map<std::pair<std::string, int64_t>, int64_t> found;
  for (const Piece& piece : pieces) {
    if (const auto part = numbered(piece.file))
      ++found[{(piece.relative.parent_path() / part->name).string(), part->count}];
  }
  for (const auto& [whole, count] : found) {
    if (count >= whole.second || !first_time(name + "\n" + whole.first)) continue;
    log_warning("the data set '{}': {} of the {} files of '{}' are in the cache", name, count,
                whole.second, shown(whole.first));
  }
}

// Where "org/name@revision" ends in a path whose second slash is at `second`. A revision that
// begins with refs/ has slashes: the longest that the cache has, else as the Hub names its own
// (refs/convert/parquet, refs/pr/7).
size_t end_of_repository(const std::string& path, size_t second) {
  constexpr std::string_view kReference = "@refs/";
  if (second == std::string::npos) return path.size();
  if (second + 1 < kReference.size() ||
      path.compare(second + 1 - kReference.size(), kReference.size(), kReference) != 0)
    return second;
  for (size_t end = path.size(); end > second; end = path.rfind('/', end - 1)) {
    const auto repository = parse_hub_repository(path.substr(0, end));
    if (repository && find_snapshot(HubKind::kDataset, *repository)) return end;
  }
  const size_t third = path.find('/', second + 1);
  if (third == std::string::npos) return path.size();
  return std::min(path.find('/', third + 1), path.size());
}

}  // namespace

std::optional<HubDataset> parse_hub_dataset(const std::string& text) {
  HubDataset dataset;
  const size_t colon = text.find(':');
  const std::string path = text.substr(0, colon);
  if (colon != std::string::npos) {
    dataset.split = text.substr(colon + 1);
    if (dataset.split.empty() || dataset.split.find_first_of("/:") != std::string::npos)
      return std::nullopt;
  }
  const size_t first = path.find('/');
  if (first == std::string::npos) return std::nullopt;  // a name alone is a file's
  const size_t end = end_of_repository(path, path.find('/', first + 1));
  const auto repository = parse_hub_repository(path.substr(0, end));
  if (!repository) return std::nullopt;
  dataset.repository = *repository;
  if (end < path.size()) dataset.part = path.substr(end + 1);
  while (dataset.part.ends_with('/')) dataset.part.pop_back();
  for (const fs::path& name : fs::path(dataset.part)) {
    if (name == ".." || name == "/" || name == ".") return std::nullopt;
  }
  return dataset;
}

bool names_hub_dataset(const std::string& path) {
  std::error_code ignored;
  const auto dataset = parse_hub_dataset(path);
  return dataset && !fs::exists(path, ignored) &&
         find_snapshot(HubKind::kDataset, dataset->repository);
}

std::vector<fs::path> hub_dataset_files(const std::string& name, const HubDataset& dataset) {
  const std::string download = hub_download(HubKind::kDataset, dataset.repository);
  const auto snapshot = find_snapshot(HubKind::kDataset, dataset.repository);
  if (!snapshot) {
    fail_usage(
        "'{}' is no file or folder to take a corpus from, and no data set in the Hugging Face "
        "cache ({}); to download it: {}",
        name, hub_cache().string(), download);
  }
  const fs::path place = dataset.part.empty() ? *snapshot : *snapshot / dataset.part;
  std::error_code ignored;
  if (fs::is_regular_file(place, ignored)) return {place};
  if (!fs::is_directory(place, ignored)) {
    fail_usage("the data set '{}' has no '{}' in the cache ({}); to download all of it: {}", name,
               dataset.part, snapshot->string(), download);
  }
  const std::vector<Piece> all = pieces_below(place);
  std::vector<Piece> pieces = of_best_kind(all);
  if (pieces.empty()) {
    fail_usage(
        "the data set '{}' has no .parquet, .jsonl or .txt file in the cache{}; its folder: "
        "{}",
        name, all.empty() ? "" : fmt::format("; it has '{}'", shown(all[0].relative.string())),
        place.string());
  }
  check_text_is_meant(name, all, pieces);
  const std::vector<Piece> of_kind = pieces;
  pieces = of_split(name, dataset, std::move(pieces));
  if (dataset.part.empty()) check_one_subset(name, pieces);
  say_left_out(name, all, of_kind);
  say_missing(name, pieces);
  std::vector<fs::path> files;
  for (const Piece& piece : pieces) files.push_back(piece.file);
  return files;
}

}  // namespace refract
