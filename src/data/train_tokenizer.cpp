#include "data/train_tokenizer.h"

#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/progress.h"

namespace refract {

std::shared_ptr<const Tokenizer> train_tokenizer(const std::vector<std::string>& corpus,
                                                 const SourceOptions& source,
                                                 const BpeTrainingOptions& options,
                                                 const std::filesystem::path& out) {
  namespace fs = std::filesystem;
  const bool folder = fs::is_directory(out) || out.extension() != ".json";
  const fs::path file = folder ? out / "tokenizer.json" : out;
  std::error_code error;  // before anything is counted
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), error);
  if (error) fail("can't make the folder '{}': {}", file.parent_path().string(), error.message());
  BpeTrainer trainer(options);
  const auto documents = open_source(corpus, source);
  Progress progress("count words", documents->total_bytes());
  while (const auto document = documents->next()) {
    trainer.add(document->text);
    progress.update(documents->bytes_read());
  }
  progress.finish();
  write_file_atomically(file, trainer.finish());
  std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(file.string());
  if (folder) tokenizer->save(out);
  return tokenizer;
}

}  // namespace refract
