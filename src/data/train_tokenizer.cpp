#include "data/train_tokenizer.h"

#include "core/files.h"
#include "core/progress.h"

namespace refract {

std::shared_ptr<const Tokenizer> train_tokenizer(const std::vector<std::string>& corpus,
                                                 const SourceOptions& source,
                                                 const BpeTrainingOptions& options,
                                                 const std::filesystem::path& file) {
  BpeTrainer trainer(options);
  const auto documents = open_source(corpus, source);
  Progress progress("count words", documents->total_bytes());
  while (const auto document = documents->next()) {
    trainer.add(document->text);
    progress.update(documents->bytes_read());
  }
  progress.finish();
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_file_atomically(file, trainer.finish());
  return open_tokenizer(file.string());
}

}  // namespace refract
