#include "data/token_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/random.h"
#include "core/untrusted.h"
#include "data/source.h"
#include "data/tokens.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr int kCacheVersion = 2;  // changes when the same settings give other tokens

std::string hash_text(std::string_view bytes) {
  // Two FNV-1a hashes, of the text and of the text behind a salt: 128 bits.
  const uint64_t first = stream_id(bytes);
  const uint64_t second = stream_id("refract" + std::string(bytes));
  return fmt::format("{:016x}{:016x}", first, second);
}

// A folder of our own that is removed on every way out.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::error_code error;
    const fs::path place = fs::temp_directory_path(error);
    if (error) fail("there is no folder for temporary files: set TMPDIR to one that exists");
    std::string pattern = (place / "refract-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) {
      fail("can't make a temporary folder '{}': {}", pattern, std::strerror(errno));
    }
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// The files a tokenizer saves are all that it does.
std::string tokenizer_identity(const Tokenizer& tokenizer) {
  const ScratchFolder scratch;
  tokenizer.save(scratch.path());
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(scratch.path())) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string identity = fmt::format("tokenizer {}\n", tokenizer.description());
  for (const fs::path& file : files) {
    identity += fmt::format("{} {}\n", file.filename().string(), hash_text(read_file(file)));
  }
  return identity;
}

std::string corpus_identity(const DataConfig& config, const Tokenizer* tokenizer) {
  const SourceOptions options{config.text_field, static_cast<uint64_t>(config.seed),
                              config.min_chars};
  std::string identity = fmt::format("cache version {}\n", kCacheVersion);
  identity += open_source(config.path, options)->identity();
  if (!config.validation.empty()) {
    identity += "validation\n" + open_source(config.validation, options)->identity();
  } else if (config.validation_fraction > 0) {
    identity +=
        fmt::format("split {} {} seed {}\n", config.split, config.validation_fraction, config.seed);
  }
  return identity + (tokenizer ? tokenizer_identity(*tokenizer) : "tokenizer of the corpus\n");
}

// Held by the process that makes a corpus. Where the file system knows no locks, several processes
// make it side by side under different names, and the first one to finish wins.
class FileLock {
 public:
  explicit FileLock(const fs::path& path) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("can't write '{}': {}", path.string(), std::strerror(errno));
    int status = 0;
    do {
      status = ::flock(fd_, LOCK_EX);
    } while (status != 0 && errno == EINTR);
    locked_ = status == 0;
  }
  ~FileLock() { ::close(fd_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool locked() const { return locked_; }

 private:
  int fd_;
  bool locked_;
};

nlohmann::json names_of(const std::vector<fs::path>& files) {
  nlohmann::json names = nlohmann::json::array();
  for (const fs::path& file : files) names.push_back(file.filename().string());
  return names;
}

void write_manifest(const fs::path& folder, const TokenizedCorpus& corpus,
                    const std::string& identity) {
  const nlohmann::json manifest = {{"documents", corpus.documents},
                                   {"train_tokens", corpus.train_tokens},
                                   {"validation_tokens", corpus.validation_tokens},
                                   {"train", names_of(corpus.train)},
                                   {"validation", names_of(corpus.validation)},
                                   {"made_of", identity}};
  // File names are bytes; those that are not UTF-8 are only for a reader here.
  write_file_atomically(
      folder / "manifest.json",
      manifest.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::vector<fs::path> files_of(const nlohmann::json& names, const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& name : names) files.push_back(folder / name.get<std::string>());
  return files;
}

// Throws when a file is missing or damaged, and a SystemError where the system refuses a call.
CachedCorpus read_cached(const fs::path& folder, std::shared_ptr<const Tokenizer> tokenizer) {
  const fs::path path = folder / "manifest.json";
  const auto manifest = parse_json(read_file(path), fmt::format("'{}'", path.string()));
  CachedCorpus cached;
  cached.folder = folder;
  cached.corpus.documents = manifest.at("documents");
  cached.corpus.train_tokens = manifest.at("train_tokens");
  cached.corpus.validation_tokens = manifest.at("validation_tokens");
  cached.corpus.train = files_of(manifest.at("train"), folder);
  cached.corpus.validation = files_of(manifest.at("validation"), folder);
  if (open_shards(cached.corpus.train)->size() != cached.corpus.train_tokens ||
      open_shards(cached.corpus.validation)->size() != cached.corpus.validation_tokens) {
    fail("its shards do not hold the tokens that its manifest counts");
  }
  cached.tokenizer =
      tokenizer ? std::move(tokenizer) : open_tokenizer((folder / "tokenizer").string());
  return cached;
}

// Only damage lets a corpus go: a file that is missing, or that does not hold what it should. A
// system that has no memory or no file handle left just now says nothing about the files.
std::optional<CachedCorpus> find_cached(const fs::path& folder,
                                        const std::shared_ptr<const Tokenizer>& tokenizer) {
  if (!fs::exists(folder)) return std::nullopt;
  std::string damage;
  try {
    return read_cached(folder, tokenizer);
  } catch (const SystemError& error) {
    if (error.system_code() != ENOENT) throw;
    damage = error.what();
  } catch (const Error& error) {
    damage = error.what();
  } catch (const nlohmann::json::exception&) {
    damage = "its manifest.json lacks a value";
  }
  log_warning("the tokenized corpus in '{}' is damaged and is made again: {}", folder.string(),
              damage);
  fs::remove_all(folder);
  return std::nullopt;
}

void make_cached(const DataConfig& config, std::shared_ptr<const Tokenizer> tokenizer,
                 const std::string& identity, const fs::path& partial, const fs::path& folder) {
  fs::remove_all(partial);  // left by a process that was killed
  try {
    if (!tokenizer) tokenizer = make_tokenizer(config);
    const TokenizedCorpus corpus = tokenize_corpus(config, *tokenizer, partial);
    fs::create_directories(partial / "tokenizer");
    tokenizer->save(partial / "tokenizer");
    write_manifest(partial, corpus, identity);
    sync_path(partial);
    std::error_code error;
    fs::rename(partial, folder, error);
    // Another process may have been faster where there are no locks; its corpus is the same.
    if (error && !fs::exists(folder)) {
      fail("can't rename '{}' to '{}': {}", partial.string(), folder.string(), error.message());
    }
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw;
  }
  std::error_code ignored;
  fs::remove_all(partial, ignored);
}

fs::path cache_folder(const DataConfig& config) {
  if (!config.cache.empty()) return expand_path(config.cache);
  return user_cache() / "refract" / "tokens";
}

}  // namespace

CachedCorpus open_cached_corpus(const DataConfig& config,
                                std::shared_ptr<const Tokenizer> tokenizer) {
  if (!tokenizer && config.tokenizer != "chars") tokenizer = make_tokenizer(config);
  const std::string identity = corpus_identity(config, tokenizer.get());
  const fs::path root = cache_folder(config);
  std::error_code error;
  fs::create_directories(root, error);
  if (error) {
    fail("can't make the folder '{}' for tokens: {}; name one that can be written: data.cache=...",
         root.string(), error.message());
  }
  const std::string key = hash_text(identity);
  const fs::path folder = root / key;

  const FileLock lock(root / (key + ".lock"));
  if (auto cached = find_cached(folder, tokenizer)) return std::move(*cached);
  const std::string suffix = lock.locked() ? ".partial" : fmt::format(".partial.{}", ::getpid());
  make_cached(config, tokenizer, identity, root / (key + suffix), folder);
  return read_cached(folder, std::move(tokenizer));
}

}  // namespace refract
