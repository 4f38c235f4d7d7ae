#include "runs/resume/run_corpus.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "data/source_paths.h"
#include "runs/model_folder.h"
#include "text/utf8.h"
#include "train/run_paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kHashedWhole = 4 << 20;  // tokens
constexpr int64_t kSamples = 1024, kSampleTokens = 4096;
constexpr size_t kMostFiles = 1000;  // that are named
constexpr int64_t kMostCharacters = 20000;

// FNV-1a, fed in pieces.
class Hash {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) value_ = (value_ ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  }
  void add(std::span<const int32_t> tokens) {
    add({reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()});
  }
  std::string text() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

json stream_record(const std::shared_ptr<TokenStream>& stream) {
  const int64_t size = stream ? stream->size() : 0;
  Hash hash;
  std::vector<int32_t> tokens;
  const auto add = [&](int64_t begin, int64_t count) {
    tokens.resize(static_cast<size_t>(count));
    stream->read(begin, tokens);
    hash.add(std::span<const int32_t>(tokens));
  };
  if (size <= kHashedWhole) {
    for (int64_t at = 0; at < size; at += kSampleTokens)
      add(at, std::min(kSampleTokens, size - at));
  } else {
    for (int64_t i = 0; i < kSamples; ++i)
      add((size - kSampleTokens) / (kSamples - 1) * i, kSampleTokens);
    add(size - kSampleTokens, kSampleTokens);
  }
  return {{"tokens", size}, {"samples", hash.text()}};
}

json file_records(const std::vector<std::string>& paths) {
  json files = json::array();
  if (paths.empty()) return files;
  const SourcePaths found = expand_paths(paths);
  std::vector<fs::path> all(found.text.begin(), found.text.end());
  all.insert(all.end(), found.shards.begin(), found.shards.end());
  all.insert(all.end(), found.validation_shards.begin(), found.validation_shards.end());
  for (const fs::path& path : all) {
    if (files.size() == kMostFiles) break;
    std::error_code ignored;
    const auto bytes = fs::file_size(path, ignored);  // of the generator there is no file
    files.push_back({{"name", repair_utf8(path.string())}, {"bytes", ignored ? 0 : bytes}});
  }
  return files;
}

// Training tokens of each corpus of a mixture.
json part_sizes(const Dataset& data) {
  json sizes = json::array();
  for (const TokenShare& share : data.train->shares()) sizes.push_back(share.tokens);
  return sizes;
}

std::string characters_of(const Tokenizer& tokenizer) {
  std::string all;
  if (tokenizer.vocab_size() > kMostCharacters) return all;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) all += tokenizer.decode({&id, 1});
  return all;
}

std::string vocabulary_hash(const Tokenizer& tokenizer) {
  Hash hash;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    hash.add(tokenizer.decode({&id, 1}));
    hash.add(std::string_view("\0", 1));
  }
  return hash.text();
}

// Characters of `a` that are not in `b`, in quotes: "'q', 'Z'".
std::string only_in(const std::string& a, const std::string& b) {
  std::string out;
  for (size_t at = 0; at < a.size();) {
    const size_t begin = at;
    next_code_point(a, at);
    const std::string character = a.substr(begin, at - begin);
    if (b.find(character) == std::string::npos)
      out += (out.empty() ? "'" : ", '") + character + "'";
  }
  return out;
}

// The first file that is another, of two lists of the same length.
std::string file_difference(const json& was, const json& is) {
  if (was.size() != is.size())
    return fmt::format("it had {} files, and has {}", was.size(), is.size());
  for (size_t i = 0; i < was.size(); ++i) {
    const auto then = was[i].value("bytes", int64_t{0}), today = is[i].value("bytes", int64_t{0});
    if (then == today) continue;
    const std::string before = was[i].value("name", ""), now = is[i].value("name", "");
    return fmt::format("'{}' had {} bytes, and {} {}", shown(before), then,
                       now == before ? "has" : "'" + now + "' has", today);
  }
  return "";
}

// What is another, of two corpora whose tokens are.
std::vector<std::string> differences(const json& was, const json& is) {
  std::vector<std::string> found;
  const json settings = was.value("settings", json::object());
  json now_set = is.at("settings");
  for (const auto& [key, value] : settings.items()) {
    if (!now_set.contains(key)) now_set[key] = nullptr;
  }
  for (const auto& [key, value] : now_set.items()) {
    const json old = settings.value(key, json());
    if (old != value)
      found.push_back(fmt::format("data.{} was {}, and is {}", key, shown(old), shown(value)));
  }
  for (const char* list : {"files", "validation_files"}) {
    const std::string file = file_difference(was.value(list, json::array()), is.at(list));
    if (!file.empty()) found.push_back(file);
  }
  const json parts = was.value("parts", json()), now_parts = is.value("parts", json());
  if (parts != now_parts && !parts.is_null() && !now_parts.is_null())
    found.push_back(fmt::format("its corpora had {} training tokens, and have {}", shown(parts),
                                shown(now_parts)));
  const std::string before = was.value("characters", ""), now = is.value("characters", "");
  if (before != now && !before.empty() && !now.empty()) {
    const std::string more = only_in(now, before), less = only_in(before, now);
    if (!more.empty()) found.push_back("it has the characters " + more + ", which it had not");
    if (!less.empty()) found.push_back("it lacks the characters " + less);
  }
  if (found.empty() && was.value("vocabulary", "") != is.value("vocabulary", ""))
    found.emplace_back("its tokenizer has another vocabulary");
  if (found.empty()) found.emplace_back("its text is another");
  return found;
}

}  // namespace

Dataset open_run_corpus(const RunConfig& config, const fs::path& source, bool names_tokenizer) {
  if (config.data.document_token >= 0 && config.data.documents != "isolated") {
    fail_usage(
        "data.document_token = {} does nothing with data.documents = \"{}\": set data.documents = "
        "\"isolated\", or leave it out (-1)",
        config.data.document_token, config.data.documents);
  }
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!source.empty() && !names_tokenizer) tokenizer = folder_tokenizer(source);
  Dataset data = open_dataset(config.data, tokenizer);
  if (!source.empty() && names_tokenizer && data.tokenizer)
    check_tokenizer_of_model(source, *data.tokenizer, config.data.tokenizer);
  return data;
}

json corpus_record(const DataConfig& config, const Dataset& data, bool tokenizer_of_model) {
  const std::string here = fs::current_path().string();
  json record = {{"relative_to", is_valid_utf8(here) ? here : ""},
                 {"tokenizer_of_model", tokenizer_of_model},
                 {"settings",
                  {{"path", config.path},
                   {"validation", config.validation},
                   {"text_field", config.text_field},
                   {"split", config.split},
                   {"validation_fraction", config.validation_fraction},
                   {"seed", config.seed}}},
                 {"files", file_records(config.path)},
                 {"validation_files", file_records(config.validation)},
                 {"train", stream_record(data.train)},
                 {"held_out", stream_record(data.validation)}};
  if (!tokenizer_of_model) record["settings"]["tokenizer"] = config.tokenizer;
  if (config.min_chars > 0) record["settings"]["min_chars"] = config.min_chars;
  if (!config.weights.empty()) {
    record["settings"]["weights"] = config.weights;
    record["weights"] = config.weights;
    record["parts"] = part_sizes(data);
  }
  if (!data.tokenizer) return record;
  record["tokenizer"] = data.tokenizer->description();
  record["vocabulary"] = vocabulary_hash(*data.tokenizer);
  if (data.tokenizer->description().starts_with("chars"))
    record["characters"] = characters_of(*data.tokenizer);
  return record;
}

void write_corpus_record(const fs::path& run, const json& record) {
  write_file_atomically(run / kCorpusRecord,
                        record.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
}

void check_corpus(const fs::path& run, const json& record) {
  const fs::path file = run / kCorpusRecord;
  if (!fs::exists(file)) return;
  const json was =
      try_parse_json(read_file(file, "the run's record of its corpus")).value_or(json());
  if (!was.is_object()) fail("'{}' is damaged: it is not a JSON object; remove it", file.string());
  bool same = true;
  for (const char* part : {"train", "held_out", "vocabulary", "weights"})
    same = same && was.value(part, json()) == record.value(part, json());
  // Earlier versions did not write where the corpora of a mixture end.
  if (was.contains("parts")) same = same && was["parts"] == record.value("parts", json());
  if (same) return;
  std::vector<std::string> found;
  try {
    found = differences(was, record);
  } catch (const json::exception&) {
    fail("'{}' is damaged: it does not describe a corpus; remove it", file.string());
  }
  fail_usage(
      "'{}' was trained on another corpus: {}. A run keeps its corpus; to train its weights on "
      "this one, start a new run with init.from={}",
      run.string(), fmt::join(found, "; "), run.string());
}

}  // namespace refract
