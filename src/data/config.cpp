#include "data/config.h"

#include "core/config.h"

namespace refract {

void describe(Fields& fields, DataConfig& c) {
  using enum Decides;
  fields.add({"data.path", kOutcome}, c.path,
             "corpus: stories:SIZE (the generator), files (.txt, .jsonl, .parquet, .bin), folders, "
             "globs, or org/name of a data set in the Hugging Face cache");
  fields.add({"data.weights", kOutcome}, c.weights,
             "one number for each entry of data.path, by which training windows are drawn from it; "
             "empty: all are one corpus");
  fields.add({"data.validation", kOutcome}, c.validation,
             "corpus to validate on; empty: a part of data.path is kept for it");
  fields.add({"data.tokenizer", kOutcome}, c.tokenizer,
             "chars (of the corpus), bytes, or a folder or file (tokenizer.json, vocab.json, "
             "tokenizer.model)");
  fields.add({"data.text_field", kOutcome}, c.text_field,
             "field that holds the text of a .jsonl or .parquet document; a.b is b inside of a");
  fields.add({"data.min_chars", kOutcome}, c.min_chars,
             "documents of fewer characters are left out", {.min = 0});
  fields.add(
      {"data.documents", kOutcome}, c.documents,
      "whether a window's tokens attend to all before them, or positions and attention begin "
      "again with each document",
      {"joined", "isolated"});
  fields.add({"data.document_token", kOutcome}, c.document_token,
             "id of the token that an isolated document begins with; -1: the tokenizer's "
             "end-of-text token",
             {.min = -1});
  fields.add({"data.split", kOutcome}, c.split,
             "what the validation part is made of: whole documents, drawn "
             "by data.seed, or the last characters",
             {"documents", "characters"});
  fields.add({"data.validation_fraction", kOutcome}, c.validation_fraction,
             "part of data.path kept for validation", {.min = 0, .max = 0.95});
  fields.add({"data.context", kOutcome}, c.context, "tokens predicted per sequence",
             {.min = 1, .max = 1 << 24});
  fields.add({"data.seed", kOutcome}, c.seed,
             "seed of the split by documents and of the story generator", {.min = 0});
  fields.add({"data.sampling", kOutcome}, c.sampling,
             "how training windows are chosen: each once in an epoch in a permuted order, or at "
             "random places, with replacement",
             {"permutation", "random"});
  fields.add({"data.order_seed", kOutcome}, c.order_seed,
             "seed of the order in which training windows are visited; -1: run.seed", {.min = -1});
  fields.add({"data.cache", kNothing}, c.cache,
             "folder for token shards; empty: $XDG_CACHE_HOME/refract/tokens, or "
             "~/.cache/refract/tokens");
}

}  // namespace refract
