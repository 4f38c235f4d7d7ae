// Lets Python compare our tokenizers with Hugging Face's: reads documents or ids from standard
// input, writes the other to standard output. Every message is a 32-bit count, then so many bytes
// or 32-bit ids.
//   tokenize_probe encode|encode-plain TOKENIZER     documents -> ids ("plain": special tokens are
//   text) tokenize_probe encode-all TOKENIZER THREADS      the same through encode_all
//   tokenize_probe decode TOKENIZER                  ids -> bytes
//   tokenize_probe info TOKENIZER                    JSON
//   tokenize_probe save TOKENIZER FOLDER
//   tokenize_probe chars FILE FOLDER                 makes a character tokenizer and saves it
//   tokenize_probe train FILE OUT VOCAB MIN_FREQUENCY PRE_TOKENIZER nfc|none [SPECIAL...]   a line,
//   a document tokenize_probe time TOKENIZER FILE RUNS whole|lines      JSON: seconds of each run
//   on one thread
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "core/files.h"
#include "text/bpe/bpe_trainer.h"
#include "text/tokenizer.h"

namespace refract {
namespace {

template <class T>
bool read_message(std::vector<T>& out) {
  uint32_t count = 0;
  if (std::fread(&count, sizeof count, 1, stdin) != 1) return false;
  out.resize(count);
  if (std::fread(out.data(), sizeof(T), count, stdin) != count) fail("standard input ended early");
  return true;
}

template <class T>
void write_message(const T* data, size_t size) {
  const auto count = static_cast<uint32_t>(size);
  std::fwrite(&count, sizeof count, 1, stdout);
  std::fwrite(data, sizeof(T), size, stdout);
}

void encode(const Tokenizer& tokenizer, bool parse_special) {
  std::vector<char> document;
  while (read_message(document)) {
    const auto ids = tokenizer.encode({document.data(), document.size()}, parse_special);
    write_message(ids.data(), ids.size());
  }
}

void encode_many(const Tokenizer& tokenizer, int threads) {
  std::vector<std::string> documents;
  std::vector<char> document;
  while (read_message(document)) documents.emplace_back(document.begin(), document.end());
  const std::vector<std::string_view> views(documents.begin(), documents.end());
  for (const auto& ids : encode_all(tokenizer, views, threads))
    write_message(ids.data(), ids.size());
}

void decode(const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  while (read_message(ids)) {
    const std::string text = tokenizer.decode(ids);
    write_message(text.data(), text.size());
  }
}

void info(const Tokenizer& tokenizer) {
  const auto end = tokenizer.end_of_text();
  std::cout << fmt::format("{{\"vocab_size\": {}, \"end_of_text\": {}, \"description\": \"{}\"}}\n",
                           tokenizer.vocab_size(), end ? std::to_string(*end) : "null",
                           tokenizer.description());
}

// Lines with their ends.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

void train(const std::vector<std::string>& args) {
  BpeTrainingOptions options;
  options.vocab_size = std::stoll(args.at(3));
  options.min_frequency = std::stoll(args.at(4));
  options.pre_tokenizer = args.at(5);
  options.nfc = args.at(6) == "nfc";
  options.special_tokens.assign(args.begin() + 7, args.end());
  BpeTrainer trainer(options);
  const std::string text = read_file(args.at(1));
  for (const std::string_view line : lines_of(text)) trainer.add(line);
  write_file_atomically(args.at(2), trainer.finish());
}

void time_encoding(const Tokenizer& tokenizer, const std::vector<std::string>& args) {
  const std::string text = read_file(args.at(2));
  std::vector<std::string_view> documents{text};
  if (args.at(4) == "lines") documents = lines_of(text);
  std::string seconds;
  size_t tokens = 0;
  for (int run = 0; run < std::stoi(args.at(3)); ++run) {
    tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::string_view document : documents) tokens += tokenizer.encode(document).size();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    seconds += fmt::format("{}{}", run ? ", " : "", elapsed.count());
  }
  std::cout << fmt::format("{{\"tokens\": {}, \"seconds\": [{}]}}\n", tokens, seconds);
}

void run(const std::vector<std::string>& args) {
  if (args.size() < 2) fail_usage("see the head of tokenize_probe.cpp");
  const std::string& command = args[0];
  if (command == "train") return train(args);
  if (command == "chars") return make_char_tokenizer(read_file(args[1]))->save(args.at(2));
  const auto tokenizer = open_tokenizer(args[1]);
  if (command == "encode") return encode(*tokenizer, true);
  if (command == "encode-plain") return encode(*tokenizer, false);
  if (command == "encode-all") return encode_many(*tokenizer, std::stoi(args.at(2)));
  if (command == "decode") return decode(*tokenizer);
  if (command == "info") return info(*tokenizer);
  if (command == "save") return tokenizer->save(args.at(2));
  if (command == "time") return time_encoding(*tokenizer, args);
  fail_usage("unknown command '{}'", command);
}

}  // namespace
}  // namespace refract

int main(int argc, char** argv) {
  try {
    refract::run({argv + 1, argv + argc});
    return 0;
  } catch (const refract::Error& error) {
    std::cerr << "tokenize_probe: " << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "tokenize_probe: " << error.what() << "\n";
    return 1;
  }
}
