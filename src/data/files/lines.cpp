#include "data/files/lines.h"

#include <algorithm>
#include <string>

#include "core/files.h"
#include "data/files/compressed.h"

namespace refract {
namespace {

class MappedLines : public Lines {
 public:
  explicit MappedLines(const std::filesystem::path& path) : file_(path) {}

  std::optional<std::string_view> next() override {
    const std::string_view all(reinterpret_cast<const char*>(file_.bytes().data()),
                               file_.bytes().size());
    if (position_ >= all.size()) return std::nullopt;
    release_read();
    const size_t end = std::min(all.find('\n', position_), all.size());
    const std::string_view line = all.substr(position_, end - position_);
    position_ = std::min(end + 1, all.size());
    return line;
  }
  int64_t bytes_read() const override { return static_cast<int64_t>(position_); }

 private:
  void release_read() {
    constexpr size_t kStep = 32 << 20;
    if (position_ - released_ < kStep) return;
    file_.release(released_, position_ - 1);
    released_ = position_;
  }

  MappedFile file_;
  size_t position_ = 0, released_ = 0;
};

class CompressedLines : public Lines {
 public:
  explicit CompressedLines(const std::filesystem::path& path) : file_(open_compressed(path)) {}

  std::optional<std::string_view> next() override {
    size_t searched = begin_;
    for (;;) {
      const size_t end = buffer_.find('\n', searched);
      if (end != std::string::npos) return taken(end, end + 1);
      searched = buffer_.size() - begin_;
      buffer_.erase(0, begin_);
      begin_ = 0;
      if (!file_->read(buffer_)) break;
    }
    return buffer_.empty() ? std::nullopt : std::optional(taken(buffer_.size(), buffer_.size()));
  }
  int64_t bytes_read() const override { return file_->bytes_read(); }

 private:
  std::string_view taken(size_t end, size_t next) {
    const std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
    begin_ = next;
    return line;
  }

  std::unique_ptr<CompressedFile> file_;
  std::string buffer_;
  size_t begin_ = 0;
};

}  // namespace

std::unique_ptr<Lines> open_lines(const std::filesystem::path& path) {
  if (is_compressed(path)) return std::make_unique<CompressedLines>(path);
  return std::make_unique<MappedLines>(path);
}

}  // namespace refract
