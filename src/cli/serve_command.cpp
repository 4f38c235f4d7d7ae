#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/progress.h"
#include "core/system/command_line.h"
#include "runs/loaded_model.h"
#include "serve/server.h"

namespace refract {
namespace {

class ServeCommand : public Command {
 public:
  std::string name() const override { return "serve"; }
  std::string summary() const override {
    return "Answer OpenAI's completions protocol over HTTP, until Ctrl-C";
  }
  std::string example() const override { return "refract serve runs/demo --port 8080"; }
  void declare(CommandLine& line) override {
    line.positional("model", model_,
                    "a run, a checkpoint, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("--host", options_.host,
                "address to listen at; one that other machines reach needs a token");
    line.option("--port", options_.port, "0: any that is free");
    line.option("--token", options_.token,
                "what clients send as Authorization: Bearer TOKEN; better given as "
                "REFRACT_SERVE_TOKEN, which other users of the machine don't see");
    line.option("--name", options_.name, "the model's name for clients; default: MODEL as given");
    line.option("--slots", options_.slots, "sequences that grow at a time, each with its cache");
    line.option("--context", options_.context,
                "most tokens of a sequence; 0: all that the model takes");
    line.option("--queue", options_.queue, "sequences that may wait; beyond it clients get 429");
    line.option("--timeout", options_.timeout,
                "seconds for a request to come, and for a client to read on");
    line.option("--grace", options_.grace, "seconds that requests may still take after a signal");
    line.flag("--json", json_, "print one JSON object with URL and size when it listens");
  }
  int run() override;

 private:
  std::string model_;
  std::vector<std::string> overrides_;
  ServeOptions options_;
  bool json_ = false;
};

int ServeCommand::run() {
  if (options_.name.empty()) options_.name = model_;
  if (const char* token = std::getenv("REFRACT_SERVE_TOKEN"); token && options_.token.empty())
    options_.token = token;
  const LoadedModel loaded = load_model(model_, overrides_);
  serve(loaded, options_, [&](const Listening& served) {
    if (!json_) {
      log_info("'{}' is served at {}/v1/completions, {} for {} slots of {} tokens; Ctrl-C stops it",
               options_.name, served.url, format_bytes(served.cache_bytes), served.slots,
               served.context);
      return;
    }
    const nlohmann::json line = {{"url", served.url},
                                 {"model", options_.name},
                                 {"folder", loaded.folder.string()},
                                 {"slots", served.slots},
                                 {"context", served.context},
                                 {"cache_bytes", static_cast<int64_t>(served.cache_bytes)}};
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    std::fflush(stdout);
  });
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_serve_command() { return std::make_unique<ServeCommand>(); }

}  // namespace refract
