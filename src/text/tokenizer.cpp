#include "text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "text/gpt2_files.h"
#include "text/hf_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/simple_tokenizers.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void add_config(const fs::path& folder, std::map<std::string, std::string>& files) {
  const fs::path config = folder / "tokenizer_config.json";
  if (fs::exists(config)) files["tokenizer_config.json"] = read_file(config, "the tokenizer");
}

std::unique_ptr<Tokenizer> open_tokenizer_json(const fs::path& path) {
  std::map<std::string, std::string> files{{"tokenizer.json", read_file(path, "the tokenizer")}};
  add_config(path.parent_path(), files);
  return make_hf_tokenizer(std::move(files), path.string());
}

std::unique_ptr<Tokenizer> open_gpt2_files(const fs::path& vocab) {
  const fs::path merges = vocab.parent_path() / "merges.txt";
  if (!fs::exists(merges)) fail_usage("{}: merges.txt must stand beside it", vocab.string());
  std::map<std::string, std::string> files{{"vocab.json", read_file(vocab, "the tokenizer")},
                                           {"merges.txt", read_file(merges, "the tokenizer")}};
  add_config(vocab.parent_path(), files);
  files["tokenizer.json"] =
      gpt2_tokenizer_json(files["vocab.json"], files["merges.txt"], vocab.string());
  return make_hf_tokenizer(std::move(files), vocab.string());
}

std::unique_ptr<Tokenizer> open_sentencepiece(const fs::path& path) {
  return make_sentencepiece_tokenizer(read_file(path, "the tokenizer"), path.string());
}

std::unique_ptr<Tokenizer> open_folder(const fs::path& folder) {
  const fs::path json = folder / "tokenizer.json", model = folder / "tokenizer.model";
  if (fs::exists(json)) {
    // Llama 2's kind: the tokenizer.json is a translation of the SentencePiece model beside it.
    const bool translated =
        fs::exists(model) && is_sentencepiece_translation(read_file(json, "the tokenizer"));
    return translated ? open_sentencepiece(model) : open_tokenizer_json(json);
  }
  if (fs::exists(folder / "vocab.json")) return open_gpt2_files(folder / "vocab.json");
  if (fs::exists(model)) return open_sentencepiece(model);
  if (const fs::path chars = folder / "chars.json"; fs::exists(chars)) {
    return read_char_tokenizer(read_file(chars, "the tokenizer"), chars.string());
  }
  if (fs::exists(folder / "bytes.json")) return make_byte_tokenizer();
  fail_usage(
      "{}: no tokenizer in this folder (looked for tokenizer.json, vocab.json, tokenizer.model, "
      "chars.json, bytes.json)",
      folder.string());
}

std::unique_ptr<Tokenizer> open_file(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name == "chars.json")
    return read_char_tokenizer(read_file(path, "the tokenizer"), path.string());
  if (name == "bytes.json") return make_byte_tokenizer();
  if (name == "merges.txt") return open_gpt2_files(path.parent_path() / "vocab.json");
  if (name.ends_with("vocab.json")) return open_gpt2_files(path);
  if (path.extension() == ".json") return open_tokenizer_json(path);
  if (path.extension() == ".model") return open_sentencepiece(path);
  fail_usage("{}: not a tokenizer file (tokenizer.json, vocab.json, tokenizer.model or chars.json)",
             path.string());
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& specification) {
  if (specification == "bytes") return make_byte_tokenizer();
  if (specification == "chars") {
    fail_usage(
        "the tokenizer 'chars' is made from the characters of a corpus; to open a saved one, name "
        "its folder or its chars.json");
  }
  const fs::path path(specification);
  if (fs::is_directory(path)) return open_folder(path);
  if (fs::exists(path)) return open_file(path);
  fail_usage(
      "tokenizer '{}': no such file or folder (chars, bytes, or a path to tokenizer.json, "
      "vocab.json + merges.txt, or tokenizer.model)",
      specification);
}

std::vector<std::vector<TokenId>> encode_all(const Tokenizer& tokenizer,
                                             std::span<const std::string_view> documents,
                                             int threads) {
  std::vector<std::vector<TokenId>> results(documents.size());
  size_t workers = threads > 0 ? static_cast<size_t>(threads) : std::thread::hardware_concurrency();
  workers = std::clamp<size_t>(workers, 1, std::max<size_t>(documents.size(), 1));
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < documents.size(); i = next++) {
        results[i] = tokenizer.encode(documents[i]);
      }
    } catch (...) {
      next = documents.size();
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::jthread> pool;
  for (size_t i = 1; i < workers; ++i) pool.emplace_back(work);
  work();
  pool.clear();  // joins
  if (error) std::rethrow_exception(error);
  return results;
}

}  // namespace refract
