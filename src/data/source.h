// Where documents come from: files, folders, globs and the story generator, read one after another.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

struct Document {
  std::string_view text;              // UTF-8 by intention; what is not is repaired downstream
  std::shared_ptr<const void> owner;  // keeps the text alive: a memory map, or a string
};

// A sequence of documents that can be read again. Empty documents are left out.
class DocumentSource {
 public:
  virtual ~DocumentSource() = default;
  virtual std::optional<Document> next() = 0;
  virtual void rewind() = 0;
  // What the source is made of: equal text, equal documents. Files count by path, size and time.
  virtual std::string identity() const = 0;
  virtual int64_t total_bytes() const = 0;  // to read, for a progress bar
  virtual int64_t bytes_read() const = 0;
};

struct SourceOptions {
  std::string text_field = "text";  // of .jsonl and .parquet
  uint64_t seed = 1;                // of the story generator
  int64_t min_chars = 0;            // documents of fewer characters (code points) are left out
};

// Opens text sources: .txt (one document a file), .jsonl (one a line), both also compressed (.gz,
// .zst), .parquet (one a row), and "stories:20MB".
std::unique_ptr<DocumentSource> open_source(const std::vector<std::string>& paths,
                                            const SourceOptions& options = {});

}  // namespace refract
