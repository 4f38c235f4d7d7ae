#include "data/source.h"

#include "core/error.h"
#include "core/files.h"
#include "core/foreign_bytes.h"
#include "data/files/compressed.h"
#include "data/files/json_line.h"
#include "data/files/lines.h"
#include "data/files/parquet.h"
#include "data/source_paths.h"
#include "data/stories/stories.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

std::string file_identity(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) fail("can't read '{}': {}", path.string(), error.message());
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  if (error) fail("can't read '{}': {}", path.string(), error.message());
  return fmt::format("{} {} {}\n", fs::absolute(path).lexically_normal().string(), size, time);
}

// HTML and XML may be what a corpus is of; the rest is no text.
void refuse_no_text(const fs::path& path, std::string_view head) {
  if (head.starts_with("\xff\xfe") || head.starts_with("\xfe\xff")) {
    fail("'{}' is UTF-16 text; convert it to UTF-8: iconv -f UTF-16 -t UTF-8", path.string());
  }
  const size_t first = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first == std::string_view::npos || head[first] != '<') {
    refuse_foreign_bytes(path, head, "text");
  }
}

// What every source of one file has.
class FileSource : public DocumentSource {
 public:
  explicit FileSource(fs::path path) : path_(std::move(path)), identity_(file_identity(path_)) {
    size_ = static_cast<int64_t>(fs::file_size(path_));
  }
  std::string identity() const override { return identity_; }
  int64_t total_bytes() const override { return size_; }

 protected:
  fs::path path_;
  std::string identity_;
  int64_t size_ = 0;
};

class TextFileSource : public FileSource {
 public:
  using FileSource::FileSource;

  std::optional<Document> next() override {
    if (done_) return std::nullopt;
    done_ = true;
    Document document = is_compressed(path_) ? unpacked() : mapped();
    refuse_no_text(path_, document.text);
    return document.text.empty() ? std::nullopt : std::optional(std::move(document));
  }
  void rewind() override { done_ = false; }
  int64_t bytes_read() const override { return done_ ? size_ : 0; }

 private:
  Document mapped() const {
    const auto file = std::make_shared<MappedFile>(path_);
    const char* data = reinterpret_cast<const char*>(file->bytes().data());
    return {std::string_view(data, file->bytes().size()), file};
  }
  Document unpacked() const {
    const auto file = open_compressed(path_);
    const auto text = std::make_shared<std::string>();
    while (file->read(*text)) {
    }
    return {*text, text};
  }

  bool done_ = false;
};

class JsonLinesSource : public FileSource {
 public:
  JsonLinesSource(fs::path path, std::string field)
      : FileSource(std::move(path)), field_(std::move(field)) {}

  std::optional<Document> next() override {
    if (!lines_) lines_ = open_lines(path_);
    while (auto line = lines_->next()) {
      if (++line_number_ == 1) {
        refuse_no_text(path_, *line);
        if (line->starts_with("\xef\xbb\xbf")) line->remove_prefix(3);
      }
      if (line->find_first_not_of(" \t\r") == std::string_view::npos) continue;
      auto text = std::make_shared<std::string>(
          json_line_text(*line, field_, fmt::format("{}:{}", path_.string(), line_number_)));
      if (!text->empty()) return Document{*text, text};
    }
    done_ = true;
    return std::nullopt;
  }
  void rewind() override {
    lines_.reset();
    line_number_ = 0;
    done_ = false;
  }
  std::string identity() const override { return fmt::format("{}field {}\n", identity_, field_); }
  int64_t bytes_read() const override { return done_ ? size_ : lines_ ? lines_->bytes_read() : 0; }

 private:
  std::string field_;
  std::unique_ptr<Lines> lines_;
  int64_t line_number_ = 0;
  bool done_ = false;
};

class ParquetSource : public FileSource {
 public:
  ParquetSource(fs::path path, std::string field)
      : FileSource(std::move(path)), field_(std::move(field)) {}

  std::optional<Document> next() override {
    while (!done_) {
      while (block_ && row_ < block_->ends.size()) {
        const size_t begin = row_ == 0 ? 0 : block_->ends[row_ - 1], end = block_->ends[row_];
        ++row_;
        if (end > begin)
          return Document{std::string_view(block_->bytes).substr(begin, end - begin), block_};
      }
      if (!rows_) rows_ = open_parquet(path_, field_);
      block_ = std::make_shared<TextBlock>();  // documents may hold on to the last one
      row_ = 0;
      done_ = !rows_->read(*block_);
    }
    return std::nullopt;
  }
  void rewind() override {
    rows_.reset();
    block_.reset();
    done_ = false;
  }
  std::string identity() const override { return fmt::format("{}field {}\n", identity_, field_); }
  int64_t bytes_read() const override {
    const double part = done_ ? 1 : rows_ ? rows_->part_read() : 0;
    return static_cast<int64_t>(part * static_cast<double>(size_));
  }

 private:
  std::string field_;
  std::unique_ptr<TextRows> rows_;
  std::shared_ptr<TextBlock> block_;
  size_t row_ = 0;  // the next one of the block
  bool done_ = false;
};

class StorySource : public DocumentSource {
 public:
  StorySource(int64_t bytes, uint64_t seed) : generator_(seed), bytes_(bytes), seed_(seed) {}

  // Ends with the story that reaches the size.
  std::optional<Document> next() override {
    if (read_ >= bytes_) return std::nullopt;
    auto text = std::make_shared<std::string>(generator_.story(index_++));
    read_ += static_cast<int64_t>(text->size());
    return Document{*text, text};
  }
  void rewind() override {
    index_ = 0;
    read_ = 0;
  }
  std::string identity() const override {
    return fmt::format("stories version {} seed {} bytes {}\n", kStoryVersion, seed_, bytes_);
  }
  int64_t total_bytes() const override { return bytes_; }
  int64_t bytes_read() const override { return std::min(read_, bytes_); }

 private:
  StoryGenerator generator_;
  int64_t bytes_, read_ = 0;
  uint64_t seed_, index_ = 0;
};

// Whether the text has that many characters: bytes of UTF-8 that go on with none.
bool has_characters(std::string_view text, int64_t least) {
  if (least <= 0) return true;
  for (const char c : text) {
    least -= (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    if (least == 0) return true;
  }
  return false;
}

class SourceList : public DocumentSource {
 public:
  SourceList(std::vector<std::unique_ptr<DocumentSource>> parts, int64_t min_chars)
      : parts_(std::move(parts)), min_chars_(min_chars) {}

  std::optional<Document> next() override {
    for (; current_ < parts_.size(); ++current_) {
      while (auto document = parts_[current_]->next()) {
        if (has_characters(document->text, min_chars_)) return document;
      }
      before_ += parts_[current_]->total_bytes();
    }
    return std::nullopt;
  }
  void rewind() override {
    for (auto& part : parts_) part->rewind();
    current_ = 0;
    before_ = 0;
  }
  std::string identity() const override {
    std::string all;
    for (const auto& part : parts_) all += part->identity();
    if (min_chars_ > 0) all += fmt::format("at least {} characters\n", min_chars_);
    return all;
  }
  int64_t total_bytes() const override {
    int64_t total = 0;
    for (const auto& part : parts_) total += part->total_bytes();
    return total;
  }
  int64_t bytes_read() const override {
    return before_ + (current_ < parts_.size() ? parts_[current_]->bytes_read() : 0);
  }

 private:
  std::vector<std::unique_ptr<DocumentSource>> parts_;
  int64_t min_chars_;
  size_t current_ = 0;
  int64_t before_ = 0;  // bytes of the parts that are done
};

}  // namespace

std::unique_ptr<DocumentSource> open_source(const std::vector<std::string>& paths,
                                            const SourceOptions& options) {
  const SourcePaths expanded = expand_paths(paths);
  if (expanded.is_shards()) {
    fail_usage("token shards were given where text is needed ('{}')", paths.front());
  }
  std::vector<std::unique_ptr<DocumentSource>> parts;
  for (const std::string& path : expanded.text) {
    if (path.starts_with("stories:")) {
      const int64_t bytes = parse_size(std::string_view(path).substr(8));
      parts.push_back(std::make_unique<StorySource>(bytes, options.seed));
    } else if (corpus_kind(path) == CorpusKind::kJsonLines) {
      parts.push_back(std::make_unique<JsonLinesSource>(path, options.text_field));
    } else if (corpus_kind(path) == CorpusKind::kParquet) {
      parts.push_back(std::make_unique<ParquetSource>(path, options.text_field));
    } else {
      parts.push_back(std::make_unique<TextFileSource>(path));
    }
  }
  return std::make_unique<SourceList>(std::move(parts), options.min_chars);
}

}  // namespace refract
