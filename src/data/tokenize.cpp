#include "data/tokenize.h"

#include <optional>

#include "core/error.h"
#include "core/progress.h"
#include "data/source.h"
#include "data/split.h"
#include "text/utf8.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatchBytes = 4 << 20;  // text encoded at a time
constexpr size_t kBatchDocuments = 8192;
constexpr size_t kPieceBytes = 512 << 10;  // of a long document

bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// True when `text` may be cut at `cut`: a stretch around it encodes to the same ids in two parts.
bool cut_is_clean(const Tokenizer& tokenizer, std::string_view text, size_t cut) {
  constexpr size_t kReach = 200;
  size_t begin = cut > kReach ? cut - kReach : 0, end = std::min(text.size(), cut + kReach);
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) ++end;
  std::vector<TokenId> parts = tokenizer.encode(text.substr(begin, cut - begin));
  const std::vector<TokenId> right = tokenizer.encode(text.substr(cut, end - cut));
  parts.insert(parts.end(), right.begin(), right.end());
  return parts == tokenizer.encode(text.substr(begin, end - begin));
}

// One part of the corpus, training or validation, on its way to its shards.
struct Part {
  ShardWriter writer;
  int64_t documents = 0;
};

class CorpusEncoder {
 public:
  CorpusEncoder(const Tokenizer& tokenizer, int threads)
      : tokenizer_(tokenizer), threads_(threads) {
    if (const auto end = tokenizer.end_of_text()) {
      separator_ = {*end};
      separator_known_ = true;
    }
  }

  // `owner` keeps `text` alive; the text is valid UTF-8.
  void add(Part& part, std::string_view text, const std::shared_ptr<const void>& owner) {
    if (text.empty()) return;
    bool first = true;
    size_t begin = 0;
    for (const size_t end : find_cuts(tokenizer_, text, kPieceBytes)) {
      items_.push_back({&part, first && part.documents > 0, owner});
      texts_.push_back(text.substr(begin, end - begin));
      bytes_ += end - begin;
      if (bytes_ >= kBatchBytes || texts_.size() >= kBatchDocuments) flush();
      begin = end;
      first = false;
    }
    ++part.documents;
  }

  void flush() {
    const auto encoded = encode_all(tokenizer_, texts_, threads_);
    for (size_t i = 0; i < encoded.size(); ++i) {
      if (items_[i].separated) items_[i].part->writer.append(separator());
      items_[i].part->writer.append(encoded[i]);
    }
    items_.clear();
    texts_.clear();
    bytes_ = 0;
  }

 private:
  struct Item {
    Part* part;
    bool separated;  // from what the part holds already
    std::shared_ptr<const void> owner;
  };

  const std::vector<TokenId>& separator() {
    if (!separator_known_) separator_ = tokenizer_.encode("\n\n");
    separator_known_ = true;
    return separator_;
  }

  const Tokenizer& tokenizer_;
  int threads_;
  std::vector<TokenId> separator_;
  bool separator_known_ = false;
  std::vector<Item> items_;
  std::vector<std::string_view> texts_;
  size_t bytes_ = 0;
};

// Byte position behind the first `count` characters of valid UTF-8, and how many there were.
std::pair<size_t, int64_t> skip_characters(std::string_view text, int64_t count) {
  size_t position = 0;
  int64_t skipped = 0;
  while (position < text.size() && skipped < count) {
    position += utf8_length(static_cast<unsigned char>(text[position]));
    ++skipped;
  }
  return {position, skipped};
}

// Returns the number of documents.
int64_t encode_source(DocumentSource& source, const Split& split, Part& train, Part& validation,
                      CorpusEncoder& encoder, const std::string& label) {
  Progress progress(label, source.total_bytes());
  int64_t index = 0, characters_left = split.train_characters;
  for (; auto document = source.next(); ++index) {
    if (!is_valid_utf8(document->text)) {
      auto repaired = std::make_shared<std::string>(repair_utf8(document->text));
      document = Document{*repaired, repaired};
    }
    if (split.by_characters) {
      const auto [bytes, characters] = skip_characters(document->text, characters_left);
      characters_left -= characters;
      encoder.add(train, document->text.substr(0, bytes), document->owner);
      encoder.add(validation, document->text.substr(bytes), document->owner);
    } else {
      encoder.add(split.in_validation(index) ? validation : train, document->text, document->owner);
    }
    progress.update(source.bytes_read());
  }
  encoder.flush();
  return index;
}

void refuse_old_shards(const fs::path& folder, const std::string& stem) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(stem + "_train_") || name.starts_with(stem + "_val_")) {
      fail("'{}' holds shards already ('{}'): remove them or name another folder", folder.string(),
           name);
    }
  }
}

SourceOptions source_options(const DataConfig& config) {
  return {config.text_field, static_cast<uint64_t>(config.seed), config.min_chars};
}

}  // namespace

std::string corpus_name(const std::vector<std::string>& paths) {
  if (paths.empty()) return "(none)";
  return paths.size() == 1 ? paths[0] : fmt::format("{} + {} more", paths[0], paths.size() - 1);
}

std::vector<size_t> find_cuts(const Tokenizer& tokenizer, std::string_view text,
                              size_t piece_bytes) {
  constexpr int kTries = 16;
  std::vector<size_t> cuts;
  size_t begin = 0;
  while (text.size() - begin > 2 * piece_bytes) {
    size_t cut = begin + piece_bytes;
    bool found = false;
    for (int tries = 0; tries < kTries && !found && cut + 1 < text.size(); ++cut) {
      // Between a letter and the space before another: where pre-tokenizers part words anyway.
      if (!is_ascii_letter(text[cut - 1]) || text[cut] != ' ' || !is_ascii_letter(text[cut + 1])) {
        continue;
      }
      found = cut_is_clean(tokenizer, text, cut);
      ++tries;
      if (found) break;
    }
    if (!found) break;
    cuts.push_back(cut);
    begin = cut;
  }
  if (!text.empty()) cuts.push_back(text.size());
  return cuts;
}

TokenizedCorpus tokenize_corpus(const DataConfig& config, const Tokenizer& tokenizer,
                                const fs::path& folder, const TokenizeOptions& options) {
  const std::string name = corpus_name(config.path);
  const auto source = open_source(config.path, source_options(config));
  const Split split = plan_split(config, *source, name);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("can't make the folder '{}': {}", folder.string(), error.message());
  refuse_old_shards(folder, options.stem);

  const int bytes = token_bytes_for(tokenizer.vocab_size());
  Part train{{folder, options.stem + "_train", bytes, options.tokens_per_shard}};
  Part validation{{folder, options.stem + "_val", bytes, options.tokens_per_shard}};
  CorpusEncoder encoder(tokenizer, options.threads);
  TokenizedCorpus result;
  result.documents = encode_source(*source, split, train, validation, encoder, "tokenizing");
  if (!config.validation.empty()) {
    const auto other = open_source(config.validation, source_options(config));
    result.documents +=
        encode_source(*other, Split{}, validation, validation, encoder, "tokenizing (validation)");
    if (validation.documents == 0) {
      fail("the validation corpus '{}' is empty", corpus_name(config.validation));
    }
  }
  if (train.writer.tokens() == 0) fail("the corpus '{}' is empty: there is no text in it", name);
  result.train = train.writer.finish();
  result.validation = validation.writer.finish();
  result.train_tokens = train.writer.tokens();
  result.validation_tokens = validation.writer.tokens();
  return result;
}

std::shared_ptr<const Tokenizer> make_tokenizer(const DataConfig& config) {
  if (config.tokenizer != "chars") return open_tokenizer(config.tokenizer);
  std::set<char32_t> characters;
  bool many = collect_characters(*open_source(config.path, source_options(config)), characters);
  if (!config.validation.empty()) {
    const auto other = open_source(config.validation, source_options(config));
    many = collect_characters(*other, characters) || many;
  }
  if (characters.empty()) {
    fail("the corpus '{}' is empty: there is no text in it", corpus_name(config.path));
  }
  if (many) characters.insert(U'\n');  // parts the documents
  std::string text;
  for (const char32_t c : characters) append_utf8(text, c);
  return make_char_tokenizer(text);
}

}  // namespace refract
