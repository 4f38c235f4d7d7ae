#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "data/shard_folder.h"
#include "data/tokenize.h"
#include "data/train_tokenizer.h"

namespace refract {
namespace {

class TokenizeCommand : public Command {
 public:
  std::string name() const override { return "tokenize"; }
  std::string summary() const override { return "Turn a corpus into token shards"; }
  std::string example() const override {
    return "refract tokenize stories:5MB --tokenizer bytes --out shards";
  }
  bool uses_models() const override { return false; }
  void declare(CommandLine& line) override {
    line.positional("corpus", config_.path,
                    "files, folders, globs, org/name of a data set, or stories:SIZE", true);
    line.option("--tokenizer", config_.tokenizer, "chars, bytes, or a tokenizer's folder or file");
    line.option("--out", out_, "folder for the shards and the tokenizer", true);
    line.option("--text-field", config_.text_field, "field of .jsonl and .parquet documents");
    line.option("--min-chars", config_.min_chars, "documents of fewer characters are left out");
    line.option("--split", config_.split, "documents or characters");
    line.option("--validation-fraction", config_.validation_fraction,
                "part kept for validation; 0: none");
    line.option("--seed", config_.seed, "seed of the split and of generated stories");
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override {
    ShardFolder folder(out_);
    const auto tokenizer = make_tokenizer(config_);
    const TokenizedCorpus corpus = tokenize_corpus(config_, *tokenizer, folder.path());
    tokenizer->save(folder.path());
    folder.commit();
    if (json_) {
      const nlohmann::json out = {{"folder", out_},
                                  {"documents", corpus.documents},
                                  {"train_tokens", corpus.train_tokens},
                                  {"validation_tokens", corpus.validation_tokens}};
      // The folder's name may have bytes that are not UTF-8.
      fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      log_info("{} documents, {} + {} tokens ({}) in {}", corpus.documents, corpus.train_tokens,
               corpus.validation_tokens, tokenizer->description(), out_);
    }
    return 0;
  }

 private:
  DataConfig config_;
  std::string out_;
  bool json_ = false;
};

class TokenizerTrainCommand : public Command {
 public:
  std::string name() const override { return "tokenizer train"; }
  std::string summary() const override { return "Train a byte-level BPE tokenizer on a corpus"; }
  std::string example() const override {
    return "refract tokenizer train stories:5MB --vocab-size 2048 --out my-tokenizer";
  }
  bool uses_models() const override { return false; }
  void declare(CommandLine& line) override {
    line.positional("corpus", corpus_,
                    "files, folders, globs, org/name of a data set, or stories:SIZE", true);
    line.option("--vocab-size", options_.vocab_size,
                "number of ids: special tokens, 256 bytes and merges");
    line.option("--min-frequency", options_.min_frequency,
                "pairs that occur less often are not merged");
    line.option("--pre-tokenizer", options_.pre_tokenizer, "gpt2, digits or llama3");
    line.option("--text-field", source_.text_field, "field of .jsonl and .parquet documents");
    line.option("--min-chars", source_.min_chars, "documents of fewer characters are left out");
    line.option("--out", out_, "the folder to write, which --tokenizer opens; or a file NAME.json",
                true);
  }
  int run() override {
    const auto tokenizer = train_tokenizer(corpus_, source_, options_, out_);
    log_info("{}: {}", out_, tokenizer->description());
    return 0;
  }

 private:
  std::vector<std::string> corpus_;
  BpeTrainingOptions options_;
  SourceOptions source_;
  std::string out_;
};

}  // namespace

std::unique_ptr<Command> make_tokenize_command() { return std::make_unique<TokenizeCommand>(); }
std::unique_ptr<Command> make_tokenizer_train_command() {
  return std::make_unique<TokenizerTrainCommand>();
}

}  // namespace refract
