// A small program for tests/parity/test_shards.py and for measurements by hand:
//   data_probe read FILE...          prints the tokens of shards, one a line
//   data_probe stories SEED BYTES    prints stories, parted by blank lines
//   data_probe documents FIELD MIN_CHARS PATH...   prints each document with a zero byte behind it
//   data_probe tokenize FILE TOKENIZER OUT FRACTION [SHARD_TOKENS]   writes shards
#include <cstdio>
#include <cstring>
#include <string>

#include "core/error.h"
#include "data/source.h"
#include "data/tokenize.h"
#include "data/tokens.h"

namespace refract {
namespace {

void print_tokens(int argc, char** argv) {
  const auto stream = open_shards({argv + 2, argv + argc});
  std::vector<int32_t> window(4096);
  for (int64_t i = 0; i < stream->size(); i += 4096) {
    const auto count = static_cast<size_t>(std::min<int64_t>(4096, stream->size() - i));
    stream->read(i, std::span(window).first(count));
    for (size_t j = 0; j < count; ++j) std::printf("%d\n", window[j]);
  }
}

void print_stories(uint64_t seed, const std::string& size) {
  const auto source = open_source({"stories:" + size}, {"text", seed});
  while (const auto story = source->next()) {
    std::fwrite(story->text.data(), 1, story->text.size(), stdout);
    std::fputs("\n\n", stdout);
  }
}

void print_documents(int argc, char** argv) {
  const auto source = open_source({argv + 4, argv + argc}, {argv[2], 1, std::stoll(argv[3])});
  while (const auto document = source->next()) {
    std::fwrite(document->text.data(), 1, document->text.size(), stdout);
    std::fputc('\0', stdout);
  }
}

void tokenize(int argc, char** argv) {
  DataConfig config;
  config.path = {argv[2]};
  config.tokenizer = argv[3];
  config.split = "characters";
  config.validation_fraction = std::stod(argv[5]);
  TokenizeOptions options;
  if (argc > 6) options.tokens_per_shard = std::stoll(argv[6]);
  const auto corpus = tokenize_corpus(config, *make_tokenizer(config), argv[4], options);
  std::printf("%lld %lld\n", static_cast<long long>(corpus.train_tokens),
              static_cast<long long>(corpus.validation_tokens));
}

}  // namespace
}  // namespace refract

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  try {
    if (command == "read" && argc > 2) {
      refract::print_tokens(argc, argv);
    } else if (command == "stories" && argc == 4) {
      refract::print_stories(std::stoull(argv[2]), argv[3]);
    } else if (command == "documents" && argc > 4) {
      refract::print_documents(argc, argv);
    } else if (command == "tokenize" && argc >= 6) {
      refract::tokenize(argc, argv);
    } else {
      std::fputs("usage: data_probe read|stories|documents|tokenize ...\n", stderr);
      return 2;
    }
  } catch (const refract::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
