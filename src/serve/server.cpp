#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/log.h"
#include "core/untrusted.h"
#include "formats/carried.h"
#include "formats/start_token.h"
#include "serve/api.h"
#include "serve/engine/cache_memory.h"
#include "serve/engine/engine.h"
#include "serve/http/connection.h"
#include "serve/http/http_server.h"
#include "serve/metrics.h"
#include "text/gguf/gguf_tokenizer.h"
#include "train/signals.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kLastWords{2000};  // for answers to reach their clients

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

void check(const ServeOptions& options, const LoadedModel& loaded) {
  const auto within = [](const char* name, auto value, auto low, auto high) {
    if (!(value >= low && value <= high))
      fail_usage("{} {} must be from {} to {}", name, value, low, high);
  };
  within("--port", options.port, 0, 65535);
  within("--slots", options.slots, 1, 1024);
  within("--queue", options.queue, 1, 1000000);
  within("--timeout", options.timeout, 0.1, 3600.0);
  within("--grace", options.grace, 0.0, 3600.0);
  within("--context", options.context, 0, loaded.config.model.longest_cached());
  if (!loaded.tokenizer) {
    fail_usage("'{}' has no tokenizer; give one with data.tokenizer=FOLDER",
               loaded.folder.string());
  }
  if (options.token.empty() && !is_loopback(options.host)) {
    fail_usage(
        "--host {} is reached from other machines: set REFRACT_SERVE_TOKEN (or --token) to what "
        "clients must send, or leave out --host",
        options.host);
  }
  if (options.token.find_first_of(" \t\r\n%") != std::string::npos)
    fail_usage("the token must not hold spaces, line ends or %");
}

// A file of the tokenizer, of a folder or as a GGUF file stands for it; empty where it has none.
std::string tokenizer_file(const std::filesystem::path& model, const char* name) {
  if (!is_gguf_file(model)) {
    const std::filesystem::path file = model / name;
    return std::filesystem::exists(file) ? read_file(file) : "";
  }
  const MappedFile file(model);
  const GgufHeader header = read_gguf_header(file.bytes(), model);
  if (!has_gguf_tokenizer(header.settings)) return "";
  const TokenizerFiles files = gguf_tokenizer_files(header.settings);
  const auto found = files.find(name);
  return found == files.end() ? "" : found->second;
}

// What a member of the tokenizer's settings says; null where there is none.
json tokenizer_setting(const std::filesystem::path& model, const char* name) {
  const std::optional<json> tree = try_parse_json(tokenizer_file(model, "tokenizer_config.json"));
  return tree && tree->is_object() && tree->contains(name) ? tree->at(name) : json();
}

ServedModel served(const LoadedModel& loaded, const ServeOptions& options, int64_t context) {
  ServedModel model;
  model.name = options.name;
  model.start = start_token(loaded.carried, *loaded.tokenizer);
  const json adds = tokenizer_setting(loaded.folder, "add_bos_token");
  model.adds_start = adds.is_boolean() && adds.get<bool>();
  model.stop = stop_tokens(loaded.carried, *loaded.tokenizer);
  const json chat = tokenizer_setting(loaded.folder, "chat_template");
  model.chat_template = chat.is_string() ? chat.get<std::string>()
                                         : tokenizer_file(loaded.folder, "chat_template.jinja");
  model.limits.context = context;
  model.limits.vocabulary = loaded.config.model.vocab_size;
  model.limits.sequences = std::min(model.limits.sequences, options.queue);
  return model;
}

}  // namespace

void serve(const LoadedModel& loaded, const ServeOptions& options,
           const std::function<void(const Listening&)>& ready) {
  check(options, loaded);
  const StopSignals signals;
  const int64_t longest = loaded.config.model.longest_cached();
  const int64_t context = options.context > 0 ? options.context : longest;
  Engine engine(*loaded.model, {options.slots, context, options.queue});
  Metrics metrics;
  const Api api(engine, metrics, *loaded.tokenizer, served(loaded, options, context));
  HttpOptions http;
  http.host = options.host;
  http.port = static_cast<int>(options.port);
  http.token = options.token;
  http.timeout = milliseconds(options.timeout);
  HttpServer server(
      http, [&](const HttpCall& call) { return api.answer(call); },
      [&](int status) { metrics.answered(status); });
  ready({server.url(), options.slots, context, cache_bytes(*loaded.model, options.slots, context)});
  std::exception_ptr trouble, lost;  // of the acceptor, of the engine
  std::atomic<bool> stop = false;
  std::thread acceptor([&] {
    try {
      server.run([&] { return stop || StopSignals::received() != 0; });
      log_info("stopping: requests under way have {} s", options.grace);
      engine.stop(milliseconds(options.grace));
    } catch (...) {
      trouble = std::current_exception();
      engine.stop(milliseconds(0));
    }
  });
  try {
    engine.run();
  } catch (...) {
    lost = std::current_exception();
    stop = true;
  }
  acceptor.join();
  server.finish(kLastWords);
  if (lost) std::rethrow_exception(lost);
  if (trouble) std::rethrow_exception(trouble);
}

}  // namespace refract
