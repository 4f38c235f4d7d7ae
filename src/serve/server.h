// A model behind HTTP, from its start to a signal that stops it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "runs/loaded_model.h"

namespace refract {

struct ServeOptions {
  std::string host = "127.0.0.1";
  int64_t port = 8080;  // 0: any that is free
  std::string token;    // required of clients; must not be empty beyond loopback
  std::string name;     // of the model
  int64_t slots = 8;    // sequences that grow at a time
  int64_t context = 0;  // tokens of a sequence; 0: all that the model takes
  int64_t queue = 256;  // sequences that may wait
  double timeout = 30;  // seconds for a request to come, and for a client to read on
  double grace = 10;    // seconds that requests under way may take after a signal
};

// What a server that listens says of itself.
struct Listening {
  std::string url;
  int64_t slots = 0, context = 0;
  double cache_bytes = 0;  // of all slots
};

// Serves until a signal of StopSignals; then it takes nothing new and finishes what it can in
// `grace`. `ready` is told once it listens. The calling thread computes. Errors (usage) name the
// options of `refract serve`.
void serve(const LoadedModel& loaded, const ServeOptions& options,
           const std::function<void(const Listening&)>& ready);

}  // namespace refract
