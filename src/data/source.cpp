#include "data/source.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
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

// One source of several; readers share the progress count by adding to `bytes_read`.
class TextFileSource : public DocumentSource {
 public:
  explicit TextFileSource(fs::path path) : path_(std::move(path)), identity_(file_identity(path_)) {
    size_ = static_cast<int64_t>(fs::file_size(path_));
  }

  std::optional<Document> next() override {
    if (done_) return std::nullopt;
    done_ = true;
    const auto file = std::make_shared<MappedFile>(path_);
    if (file->bytes().empty()) return std::nullopt;
    const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                                file->bytes().size());
    return Document{text, file};
  }
  void rewind() override { done_ = false; }
  std::string identity() const override { return identity_; }
  int64_t total_bytes() const override { return size_; }
  int64_t bytes_read() const override { return done_ ? size_ : 0; }

 private:
  fs::path path_;
  std::string identity_;
  int64_t size_ = 0;
  bool done_ = false;
};

class JsonLinesSource : public DocumentSource {
 public:
  JsonLinesSource(fs::path path, std::string field)
      : path_(std::move(path)), field_(std::move(field)), identity_(file_identity(path_)) {
    size_ = static_cast<int64_t>(fs::file_size(path_));
  }

  std::optional<Document> next() override {
    if (!file_) file_ = std::make_unique<MappedFile>(path_);
    const std::string_view all(reinterpret_cast<const char*>(file_->bytes().data()),
                               file_->bytes().size());
    while (position_ < all.size()) {
      const size_t end = std::min(all.find('\n', position_), all.size());
      const std::string_view line = all.substr(position_, end - position_);
      position_ = std::min(end + 1, all.size());
      ++line_number_;
      release_read();
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      auto text = std::make_shared<std::string>(text_of(line));
      if (!text->empty()) return Document{*text, text};
    }
    return std::nullopt;
  }
  void rewind() override {
    position_ = released_ = 0;
    line_number_ = 0;
  }
  std::string identity() const override { return fmt::format("{}field {}\n", identity_, field_); }
  int64_t total_bytes() const override { return size_; }
  int64_t bytes_read() const override { return static_cast<int64_t>(position_); }

 private:
  std::string text_of(std::string_view line) const {
    const auto where = [&] { return fmt::format("{}:{}", path_.string(), line_number_); };
    nlohmann::json tree = parse_json(
        line, fmt::format("{}: the line (a .jsonl file has one object a line)", where()));
    if (!tree.is_object()) fail("{}: the line is not a JSON object", where());
    const auto found = tree.find(field_);
    if (found == tree.end()) {
      std::string names;
      for (const auto& item : tree.items()) names += (names.empty() ? "" : ", ") + item.key();
      names = shown(names);
      fail("{}: the document has no field '{}' (it has: {}); name the text's with data.text_field",
           where(), field_, names);
    }
    if (!found->is_string()) fail("{}: the field '{}' is not a text", where(), field_);
    return std::move(found->get_ref<std::string&>());
  }

  void release_read() {
    constexpr size_t kStep = 32 << 20;
    if (position_ - released_ < kStep) return;
    file_->release(released_, position_ - 1);
    released_ = position_;
  }

  fs::path path_;
  std::string field_, identity_;
  std::unique_ptr<MappedFile> file_;
  size_t position_ = 0, released_ = 0;
  int64_t size_ = 0, line_number_ = 0;
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

class SourceList : public DocumentSource {
 public:
  explicit SourceList(std::vector<std::unique_ptr<DocumentSource>> parts)
      : parts_(std::move(parts)) {}

  std::optional<Document> next() override {
    for (; current_ < parts_.size(); ++current_) {
      if (auto document = parts_[current_]->next()) return document;
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
    } else if (fs::path(path).extension() == ".jsonl" || fs::path(path).extension() == ".JSONL") {
      parts.push_back(std::make_unique<JsonLinesSource>(path, options.text_field));
    } else {
      parts.push_back(std::make_unique<TextFileSource>(path));
    }
  }
  return std::make_unique<SourceList>(std::move(parts));
}

}  // namespace refract
