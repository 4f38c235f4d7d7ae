#include "text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "text/gguf/gguf_tokenizer.h"
#include "text/hf_settings.h"
#include "text/hf_tokenizer.h"
#include "text/sentencepiece/sentencepiece_tokenizer.h"
#include "text/simple_tokenizers.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// The named files of a folder that are there, name to bytes.
TokenizerFiles read_files(const fs::path& folder, const std::vector<std::string>& names) {
  TokenizerFiles files;
  for (const std::string& name : names) {
    if (fs::exists(folder / name)) files[name] = read_file(folder / name, "the tokenizer");
  }
  return files;
}

// What every tokenizer of a folder has beside it, chat templates among it.
TokenizerFiles side_files(const fs::path& folder) {
  std::vector<std::string> names = tokenizer_side_files();
  const fs::path templates = "additional_chat_templates";
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder / templates, none)) {
    if (entry.path().extension() == ".jinja")
      names.push_back((templates / entry.path().filename()).string());
  }
  return read_files(folder, names);
}

// The model's, which may name the tokenizer's class.
std::string config_of(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  return fs::exists(path) ? read_file(path, "the model's configuration") : "";
}

std::unique_ptr<Tokenizer> open_tokenizer_json(const fs::path& path) {
  const fs::path folder = path.parent_path();
  TokenizerFiles files = side_files(folder);
  files.merge(read_files(folder, {"vocab.json", "merges.txt", "tokenizer.model"}));
  files["tokenizer.json"] = read_file(path, "the tokenizer");
  return make_hf_tokenizer(std::move(files), path.string(), config_of(folder));
}

std::unique_ptr<Tokenizer> open_gpt2_files(const fs::path& vocab) {
  const fs::path folder = vocab.parent_path(), merges = folder / "merges.txt";
  if (!fs::exists(merges)) fail_usage("{}: merges.txt must stand beside it", vocab.string());
  TokenizerFiles files = side_files(folder);
  files["vocab.json"] = read_file(vocab, "the tokenizer");
  files["merges.txt"] = read_file(merges, "the tokenizer");
  return make_hf_tokenizer(std::move(files), vocab.string(), config_of(folder));
}

// A file that is named alone is that model and no more.
std::unique_ptr<Tokenizer> open_sentencepiece(const fs::path& path) {
  return make_sentencepiece_tokenizer({{"tokenizer.model", read_file(path, "the tokenizer")}},
                                      path.string());
}

std::unique_ptr<Tokenizer> open_sentencepiece_folder(const fs::path& folder) {
  const fs::path model = folder / "tokenizer.model";
  TokenizerFiles files = side_files(folder);
  files.merge(read_files(folder, {"tokenizer.json"}));
  files["tokenizer.model"] = read_file(model, "the tokenizer");
  return make_sentencepiece_tokenizer(std::move(files), model.string(), config_of(folder));
}

std::unique_ptr<Tokenizer> open_folder(const fs::path& folder) {
  const fs::path json = folder / "tokenizer.json", model = folder / "tokenizer.model";
  if (fs::exists(json)) {
    // Llama 2's kind: the tokenizer.json is a translation of the SentencePiece model beside it.
    const bool translated =
        fs::exists(model) && is_sentencepiece_translation(read_file(json, "the tokenizer"));
    return translated ? open_sentencepiece_folder(folder) : open_tokenizer_json(json);
  }
  if (fs::exists(folder / "vocab.json")) return open_gpt2_files(folder / "vocab.json");
  if (fs::exists(model)) return open_sentencepiece_folder(folder);
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
  if (is_gguf_file(path)) return open_gguf_tokenizer(path);
  fail_usage(
      "{}: not a tokenizer file (tokenizer.json, vocab.json, tokenizer.model, chars.json or a "
      "GGUF model)",
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
