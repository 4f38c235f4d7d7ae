#include "text/bpe/bpe_trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "text/bpe/byte_level.h"
#include "text/hf_components.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace refract {
namespace {

using nlohmann::ordered_json;

ordered_json byte_level_json(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

ordered_json sequence_json(ordered_json first, bool use_regex) {
  return {{"type", "Sequence"},
          {"pretokenizers", ordered_json::array({std::move(first), byte_level_json(use_regex)})}};
}

ordered_json pre_tokenizer_json(const std::string& name) {
  if (name == "gpt2") return byte_level_json(true);
  if (name == "digits") {
    return sequence_json({{"type", "Digits"}, {"individual_digits", true}}, true);
  }
  if (name == "llama3") {
    return sequence_json({{"type", "Split"},
                          {"pattern", {{"Regex", kLlama3Pattern}}},
                          {"behavior", "Isolated"},
                          {"invert", false}},
                         false);
  }
  fail_usage("unknown pre-tokenizer '{}' (gpt2, digits or llama3)", name);
}

using Pair = std::pair<int32_t, int32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    const uint64_t key = (static_cast<uint64_t>(static_cast<uint32_t>(pair.first)) << 32) |
                         static_cast<uint32_t>(pair.second);
    const uint64_t mixed = key * 0x9E3779B97F4A7C15ull;
    return mixed ^ (mixed >> 32);
  }
};

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

// A pair that may be merged next, with the words it was seen in.
struct Candidate {
  int64_t count;
  Pair pair;
  std::vector<uint32_t> words;
  // The top of the heap: the highest count, then the smallest pair.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

// The merge loop. Pair counts are kept up to date word by word; a candidate whose count has changed
// since it was queued goes back with the new one.
class MergeLoop {
 public:
  MergeLoop(std::vector<Word> words, std::vector<std::string> tokens,
            const BpeTrainingOptions& options)
      : words_(std::move(words)), tokens_(std::move(tokens)), options_(options) {
    for (size_t i = 0; i < tokens_.size(); ++i) ids_[tokens_[i]] = static_cast<int32_t>(i);
  }

  void run() {
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const auto& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        change({symbols[i], symbols[i + 1]}, words_[w].count, w);
      }
    }
    queue_new_pairs();
    while (static_cast<int64_t>(tokens_.size()) < options_.vocab_size && !heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      Candidate top = std::move(heap_.back());
      heap_.pop_back();
      const int64_t count = counts_[top.pair];
      if (count != top.count) {
        top.count = count;
        push(std::move(top));
        continue;
      }
      if (count < 1 || count < options_.min_frequency) break;
      merge(top);
    }
  }

  const std::vector<std::string>& tokens() const { return tokens_; }
  // In order of priority, each pair once.
  const std::vector<Pair>& merges() const { return merges_; }

 private:
  void push(Candidate candidate) {
    heap_.push_back(std::move(candidate));
    std::push_heap(heap_.begin(), heap_.end());
  }

  void change(Pair pair, int64_t by, uint32_t word) {
    counts_[pair] += by;
    if (by <= 0) return;
    auto& seen = new_pairs_[pair];
    if (seen.empty() || seen.back() != word) seen.push_back(word);
  }

  void queue_new_pairs() {
    for (auto& [pair, words] : new_pairs_) {
      const int64_t count = counts_[pair];
      if (count > 0) push({count, pair, std::move(words)});
    }
    new_pairs_.clear();
  }

  void merge(const Candidate& top) {
    std::string token = tokens_[static_cast<size_t>(top.pair.first)] +
                        tokens_[static_cast<size_t>(top.pair.second)];
    const auto [place, is_new] = ids_.try_emplace(token, static_cast<int32_t>(tokens_.size()));
    if (is_new) tokens_.push_back(std::move(token));
    // Where two merges make the same token, a pair with it can come up twice; its first rank
    // counts.
    if (merged_.insert(top.pair).second) merges_.push_back(top.pair);
    for (const uint32_t w : top.words) merge_in_word(w, top.pair, place->second);
    queue_new_pairs();
  }

  void merge_in_word(uint32_t w, Pair pair, int32_t id) {
    auto& symbols = words_[w].symbols;
    const int64_t count = words_[w].count;
    size_t out = 0;
    for (size_t i = 0; i < symbols.size(); ++i) {
      if (symbols[i] != pair.first || i + 1 >= symbols.size() || symbols[i + 1] != pair.second) {
        symbols[out++] = symbols[i];
        continue;
      }
      if (out > 0) {
        change({symbols[out - 1], pair.first}, -count, w);
        change({symbols[out - 1], id}, count, w);
      }
      ++i;
      if (i + 1 < symbols.size()) {
        change({pair.second, symbols[i + 1]}, -count, w);
        change({id, symbols[i + 1]}, count, w);
      }
      symbols[out++] = id;
    }
    symbols.resize(out);
  }

  std::vector<Word> words_;
  std::vector<std::string> tokens_;
  const BpeTrainingOptions& options_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<Pair, int64_t, PairHash> counts_;
  std::unordered_map<Pair, std::vector<uint32_t>, PairHash> new_pairs_;
  std::unordered_set<Pair, PairHash> merged_;
  std::vector<Candidate> heap_;
  std::vector<Pair> merges_;
};

// Special tokens, then the 256 byte characters in code point order.
std::vector<std::string> first_tokens(const BpeTrainingOptions& options) {
  std::vector<std::string> tokens = options.special_tokens;
  auto characters = byte_characters();
  std::sort(characters.begin(), characters.end());
  for (const char32_t c : characters) append_utf8(tokens.emplace_back(), c);
  return tokens;
}

ordered_json added_tokens_json(const BpeTrainingOptions& options) {
  ordered_json added = ordered_json::array();
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    added.push_back({{"id", i},
                     {"content", options.special_tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return added;
}

std::string tokenizer_json(const BpeTrainingOptions& options, const MergeLoop& result) {
  const auto& tokens = result.tokens();
  ordered_json vocab = ordered_json::object(), merges = ordered_json::array();
  auto& members = vocab.get_ref<ordered_json::object_t&>();
  members.reserve(tokens.size());  // appended directly: ordered_json's operator[] searches
  for (size_t i = 0; i < tokens.size(); ++i) members.emplace_back(tokens[i], i);
  for (const auto& [left, right] : result.merges()) {
    merges.push_back({tokens[static_cast<size_t>(left)], tokens[static_cast<size_t>(right)]});
  }
  const ordered_json normalizer = options.nfc ? ordered_json{{"type", "NFC"}} : ordered_json();
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", false},
                              {"vocab", std::move(vocab)},
                              {"merges", std::move(merges)}};
  const ordered_json file = {{"version", "1.0"},
                             {"truncation", nullptr},
                             {"padding", nullptr},
                             {"added_tokens", added_tokens_json(options)},
                             {"normalizer", normalizer},
                             {"pre_tokenizer", pre_tokenizer_json(options.pre_tokenizer)},
                             {"post_processor", nullptr},
                             {"decoder", byte_level_json(true)},
                             {"model", model}};
  return file.dump(1) + "\n";
}

}  // namespace

struct BpeTrainer::State {
  explicit State(BpeTrainingOptions o)
      : options(std::move(o)),
        pre_tokenizer(read_pre_tokenizer(nlohmann::json(pre_tokenizer_json(options.pre_tokenizer)),
                                         "the trainer")),
        scratch(pre_tokenizer) {}

  BpeTrainingOptions options;
  PreTokenizer pre_tokenizer;
  PreTokenizer::Scratch scratch;
  std::unordered_map<std::string, int64_t> counts;
  std::string key;  // reused: a lookup allocates nothing
};

BpeTrainer::BpeTrainer(BpeTrainingOptions options) {
  const auto first = first_tokens(options);
  const std::unordered_set<std::string> unique(first.begin(), first.end());
  if (unique.size() != first.size() || unique.contains("")) {
    fail_usage(
        "special tokens must be different, not empty, and no single printable character of a byte");
  }
  const auto smallest = static_cast<int64_t>(first.size());
  if (options.vocab_size < smallest) {
    fail_usage("a vocabulary of {} is too small: 256 bytes and {} special tokens need {}",
               options.vocab_size, options.special_tokens.size(), smallest);
  }
  state_ = std::make_unique<State>(std::move(options));
}

BpeTrainer::~BpeTrainer() = default;

void BpeTrainer::add(std::string_view document) {
  State& s = *state_;
  std::string repaired, normalized;
  document = as_valid_utf8(document, repaired);
  if (s.options.nfc) document = normalize_nfc(document, normalized);
  auto count = [&](std::string_view word) {
    s.key.assign(word);
    ++s.counts[s.key];
  };
  s.pre_tokenizer.split(document, s.scratch, WordSink(count));
}

std::string BpeTrainer::finish() {
  State& s = *state_;
  if (s.counts.empty()) fail("there is no text to train a tokenizer on");
  std::vector<std::string> tokens = first_tokens(s.options);
  std::array<int32_t, 256> byte_ids;
  for (size_t i = s.options.special_tokens.size(); i < tokens.size(); ++i) {
    const std::string bytes = characters_to_bytes(tokens[i]).value();
    byte_ids[static_cast<unsigned char>(bytes[0])] = static_cast<int32_t>(i);
  }
  std::vector<Word> words;
  words.reserve(s.counts.size());
  // In a fixed order, so that nothing depends on the hash table's.
  std::vector<std::pair<std::string, int64_t>> sorted(s.counts.begin(), s.counts.end());
  s.counts.clear();
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [text, count] : sorted) {
    Word& word = words.emplace_back(Word{{}, count});
    for (const char c : text) word.symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
  }
  MergeLoop loop(std::move(words), std::move(tokens), s.options);
  loop.run();
  return tokenizer_json(s.options, loop);
}

}  // namespace refract
