// Settings of the corpus ([data] in a recipe).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace refract {

class Fields;

struct DataConfig {
  std::vector<std::string> path = {"stories:20MB"};  // generator, files, folders, globs, shards
  std::vector<std::string> validation;               // its own sources; empty: split from `path`
  std::string tokenizer = "chars";                   // chars | bytes | a folder or file
  std::vector<double> weights;       // of the corpora in `path`, one each; empty: one corpus
  std::string text_field = "text";   // of .jsonl and .parquet documents
  int64_t min_chars = 0;             // documents of fewer characters are left out
  std::string documents = "joined";  // joined | isolated
  int64_t document_token = -1;       // that begins an isolated document; -1: the end-of-text token
  std::string split = "documents";   // documents | characters
  double validation_fraction = 0.1;  // of documents or characters
  int64_t context = 256;             // tokens predicted per sequence
  int64_t seed = 1;                  // of the split and of the generator
  std::string sampling = "permutation";  // permutation | random
  int64_t order_seed = -1;               // of the windows' order; -1: the run's
  std::string cache;                     // folder of token shards; empty: the user's cache
};

void describe(Fields& fields, DataConfig& config);

}  // namespace refract
