#include "data/dataset.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/progress.h"
#include "data/mix/mixture.h"
#include "data/source.h"
#include "data/source_paths.h"
#include "data/token_cache.h"

namespace refract {
namespace {

void check(const DataConfig& config) {
  if (!(config.validation_fraction >= 0 && config.validation_fraction < 1)) {
    fail_usage("data.validation_fraction = {}: it must be at least 0 and below 1",
               config.validation_fraction);
  }
  if (config.context < 1) fail_usage("data.context = {}: it must be at least 1", config.context);
}

std::string token_counts(const Dataset& data) {
  const auto count = [](const auto& stream) {
    return format_count(static_cast<double>(stream->size()));
  };
  return fmt::format("{} + {} tokens", count(data.train), count(data.validation));
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) {
    digits.insert(digits.begin() + i, ',');
  }
  return digits;
}

void check_weights(const DataConfig& config) {
  if (config.weights.size() != config.path.size()) {
    fail_usage("data.weights has {} numbers for {} corpora: data.path takes one entry for each",
               config.weights.size(), config.path.size());
  }
  const std::vector<int64_t> slots = mix_slots(config.weights);
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i] > 0) continue;
    fail_usage("data.weights: the share of '{}' is below 1 in {}, the least that is drawn",
               config.path[i], kMixSlots);
  }
}

// What tells a source of a corpus from others. The generator's texts of all sizes begin alike, and
// two links may lead to one file.
std::string source_key(const std::filesystem::path& source) {
  if (source.string().starts_with("stories:")) return "stories:";
  std::error_code error;
  const auto whole = std::filesystem::canonical(source, error);
  return error ? source.string() : whole.string();
}

// Each corpus is split by itself, so what two of them hold would be for training in one and for
// validation in the other.
void check_apart(const DataConfig& config) {
  std::map<std::string, size_t> holders;
  for (size_t i = 0; i < config.path.size(); ++i) {
    const SourcePaths paths = expand_paths({config.path[i]});
    std::vector<std::filesystem::path> sources(paths.text.begin(), paths.text.end());
    sources.insert(sources.end(), paths.shards.begin(), paths.shards.end());
    sources.insert(sources.end(), paths.validation_shards.begin(), paths.validation_shards.end());
    for (const std::filesystem::path& source : sources) {
      const size_t holder = holders.emplace(source_key(source), i).first->second;
      if (holder == i) continue;
      fail_usage(
          "'{}' is in two corpora of data.path, '{}' and '{}': what one keeps for validation the "
          "other would train on; name it once, or set data.validation",
          source.string(), config.path[holder], config.path[i]);
    }
  }
}

// Of corpora with weights: given, or named, or of the characters of all of them; none for shards
// alone.
std::shared_ptr<const Tokenizer> common_tokenizer(const DataConfig& config,
                                                  std::shared_ptr<const Tokenizer> given) {
  if (given) return given;
  if (config.tokenizer != "chars") return open_tokenizer(config.tokenizer);
  const auto shards =
      std::count_if(config.path.begin(), config.path.end(),
                    [](const std::string& path) { return expand_paths({path}).is_shards(); });
  if (shards == 0) return make_tokenizer(config);
  if (shards == std::ssize(config.path)) return nullptr;
  fail_usage("data.path names token shards beside text: set data.tokenizer to the shards' own");
}

// Shards carry no tokenizer, so the default, the characters of the corpus, can't be meant.
std::shared_ptr<const Tokenizer> tokenizer_of_shards(const DataConfig& config,
                                                     std::shared_ptr<const Tokenizer> given) {
  if (given || config.tokenizer == "chars") return given;
  return open_tokenizer(config.tokenizer);
}

// The whole of a corpus as tokens, its parts one behind the other.
std::shared_ptr<TokenStream> open_whole(const DataConfig& config,
                                        std::shared_ptr<const Tokenizer> tokenizer) {
  const SourcePaths paths = expand_paths(config.path);
  if (paths.is_shards()) {
    std::vector<std::filesystem::path> all = paths.shards;
    all.insert(all.end(), paths.validation_shards.begin(), paths.validation_shards.end());
    return open_shards(all);
  }
  if (!tokenizer && config.tokenizer == "chars") {
    fail_usage("the corpus '{}' is text, and no tokenizer is known for it: set data.tokenizer",
               corpus_name(config.path));
  }
  DataConfig whole = config;
  whole.weights.clear();
  whole.validation.clear();
  whole.validation_fraction = 0;
  return open_shards(open_cached_corpus(whole, std::move(tokenizer)).corpus.train);
}

Dataset open_shard_dataset(const DataConfig& config, const SourcePaths& paths,
                           std::shared_ptr<const Tokenizer> tokenizer) {
  Dataset data;
  data.tokenizer = tokenizer_of_shards(config, std::move(tokenizer));
  if (paths.shards.empty()) {
    fail_usage("'{}' holds validation shards only: name the training shards too",
               corpus_name(config.path));
  }
  data.train = open_shards(paths.shards);
  if (!config.validation.empty()) {
    DataConfig other = config;
    other.path = config.validation;
    data.validation = open_whole(other, data.tokenizer);
  } else if (!paths.validation_shards.empty()) {
    data.validation = open_shards(paths.validation_shards);
  } else {
    const int64_t all = data.train->size();
    const double kept = (1 - config.validation_fraction) * static_cast<double>(all);
    const auto cut = static_cast<int64_t>(kept);
    const std::shared_ptr<const TokenStream> whole = data.train;
    data.train = slice_stream(whole, 0, cut);
    data.validation = slice_stream(whole, cut, all);
  }
  const size_t files = paths.shards.size() + paths.validation_shards.size();
  data.description = fmt::format("{}, {} shard{}, {}", corpus_name(config.path), files,
                                 files == 1 ? "" : "s", token_counts(data));
  return data;
}

// Of several corpora with weights: each split and kept on its own, so that new weights make no new
// shards.
Dataset open_mixed(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer) {
  check_weights(config);
  DataConfig each = config;
  each.weights.clear();
  const bool separate = !config.validation.empty();
  if (!separate) check_apart(config);
  if (separate) {
    each.validation.clear();
    each.validation_fraction = 0;
  }
  tokenizer = common_tokenizer(config, std::move(tokenizer));
  Dataset data;
  data.tokenizer = tokenizer;
  std::vector<MixPart> train, validation;
  std::string shares;
  for (size_t i = 0; i < config.path.size(); ++i) {
    each.path = {config.path[i]};
    const Dataset part = open_dataset(each, tokenizer);
    train.push_back({part.train, config.weights[i]});
    validation.push_back({part.validation, 1});
    shares += fmt::format("{}{:g} x ({})", i > 0 ? " + " : "", config.weights[i], part.description);
  }
  data.train = join_streams(std::move(train));
  if (separate) {
    DataConfig other = config;
    other.path = config.validation;
    data.validation = open_whole(other, data.tokenizer);
  } else {
    // Which is judged window by window from its beginning, so it has no weights.
    for (MixPart& part : validation) {
      if (!part.stream) part.stream = make_token_stream({});
    }
    data.validation = join_streams(std::move(validation));
  }
  data.description = fmt::format("{}: {}", shares, token_counts(data));
  return data;
}

}  // namespace

Dataset open_dataset(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer) {
  check(config);
  if (!config.weights.empty()) return open_mixed(config, std::move(tokenizer));
  const SourcePaths paths = expand_paths(config.path);
  if (paths.is_shards()) return open_shard_dataset(config, paths, std::move(tokenizer));

  const bool separate = !config.validation.empty();
  const bool shards = separate && expand_paths(config.validation).is_shards();
  DataConfig text = config;
  if (shards) {  // made with the same tokenizer, or check_tokens will tell
    text.validation.clear();
    text.validation_fraction = 0;
  }
  CachedCorpus cached = open_cached_corpus(text, std::move(tokenizer));
  Dataset data;
  data.tokenizer = cached.tokenizer;
  data.train = open_shards(cached.corpus.train);
  if (shards) {
    DataConfig other = config;
    other.path = config.validation;
    data.validation = open_whole(other, data.tokenizer);
  } else {
    data.validation = open_shards(cached.corpus.validation);
  }
  data.description = fmt::format("{}, {} document{}, {}", corpus_name(config.path),
                                 with_commas(cached.corpus.documents),
                                 cached.corpus.documents == 1 ? "" : "s", token_counts(data));
  return data;
}

std::shared_ptr<TokenStream> open_corpus(const DataConfig& config,
                                         std::shared_ptr<const Tokenizer> tokenizer) {
  check(config);
  return open_whole(config, std::move(tokenizer));
}

void resolve_document_token(DataConfig& config, const Tokenizer* tokenizer) {
  if (config.documents != "isolated" || config.document_token >= 0) return;
  const auto end = tokenizer ? tokenizer->end_of_text() : std::nullopt;
  if (!end) {
    fail_usage(
        "data.documents = \"isolated\": {}; set data.document_token to the id of the token that "
        "stands between documents",
        tokenizer
            ? fmt::format("the tokenizer ({}) has no end-of-text token", tokenizer->description())
            : "the corpus has no tokenizer (data.tokenizer)");
  }
  config.document_token = *end;
}

}  // namespace refract
