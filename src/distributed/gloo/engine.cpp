#include "distributed/gloo/engine.h"

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <exception>
#include <stdexcept>

namespace refract {
namespace {

// A process that is gone is noticed at once by its closed connection, and one that hangs by its
// missing signs of life (distributed/watch.h). Gloo itself waits for whoever is slow.
constexpr std::chrono::hours kPatience(24);

class Store : public gloo::rendezvous::Store {
 public:
  explicit Store(KeyValues& values) : values_(values) {}
  void set(const std::string& key, const std::vector<char>& data) override {
    values_.set(key, data);
  }
  std::vector<char> get(const std::string& key) override { return values_.get(key); }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) values_.get(key);
  }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& /*timeout*/) override {
    wait(keys);
  }

 private:
  KeyValues& values_;
};

// Later versions of Gloo want to share the store.
template <class Context>
void connect(Context& context, const std::shared_ptr<Store>& store,
             std::shared_ptr<gloo::transport::Device>& device) {
  if constexpr (requires { context.connectFullMesh(store, device); }) {
    context.connectFullMesh(store, device);
  } else {
    context.connectFullMesh(*store, device);
  }
}

// Gloo's exceptions are not of a type that the caller knows.
template <class Call>
void guarded(const char* what, const Call& call) {
  std::string message;
  try {
    call();
    return;
  } catch (const std::exception& error) {
    message = error.what();
  }
  throw std::runtime_error(std::string("Gloo's ") + what + " failed: " + message);
}

class GlooEngine : public Collectives {
 public:
  GlooEngine(const EngineSettings& settings, KeyValues& values) {
    guarded("start", [&] {
      gloo::transport::tcp::attr attributes;
      if (settings.interface.empty()) {
        attributes.hostname = settings.address;
      } else {
        attributes.iface = settings.interface;
      }
      auto device = gloo::transport::tcp::CreateDevice(attributes);
      const auto context =
          std::make_shared<gloo::rendezvous::Context>(settings.rank, settings.size);
      context->setTimeout(std::chrono::seconds(settings.connect_seconds));
      connect(*context, std::make_shared<Store>(values), device);
      context->setTimeout(kPatience);
      context_ = context;
    });
  }

  void all_reduce(float* data, int64_t count, Reduction reduction) override {
    guarded("allreduce", [&] {
      gloo::AllreduceOptions options(context_);
      options.setOutput(data, static_cast<size_t>(count));
      using Function = void (*)(void*, const void*, const void*, size_t);
      const Function sum = &gloo::sum<float>, min = &gloo::min<float>;
      options.setReduceFunction(reduction == Reduction::kSum ? sum : min);
      gloo::allreduce(options);
    });
  }
  void all_to_all(const void* in, void* out, int64_t bytes) override {
    guarded("alltoall", [&] {
      const size_t all = static_cast<size_t>(bytes) * static_cast<size_t>(context_->size);
      gloo::AlltoallOptions options(context_);
      options.setInput(static_cast<char*>(const_cast<void*>(in)), all);
      options.setOutput(static_cast<char*>(out), all);
      gloo::alltoall(options);
    });
  }
  void all_gather(const void* in, void* out, int64_t bytes) override {
    guarded("allgather", [&] {
      const auto part = static_cast<size_t>(bytes);
      const char* own = static_cast<char*>(out) + part * static_cast<size_t>(context_->rank);
      gloo::AllgatherOptions options(context_);
      // Without an input it takes what lies in the output.
      if (in != own) options.setInput(static_cast<char*>(const_cast<void*>(in)), part);
      options.setOutput(static_cast<char*>(out), part * static_cast<size_t>(context_->size));
      gloo::allgather(options);
    });
  }
  void broadcast(void* data, int64_t bytes) override {
    guarded("broadcast", [&] {
      gloo::BroadcastOptions options(context_);
      options.setOutput(static_cast<char*>(data), static_cast<size_t>(bytes));
      options.setRoot(0);
      gloo::broadcast(options);
    });
  }

 private:
  std::shared_ptr<gloo::Context> context_;
};

}  // namespace
}  // namespace refract

refract::Collectives* refract_make_gloo(const refract::EngineSettings* settings,
                                        refract::KeyValues* store) {
  return new refract::GlooEngine(*settings, *store);
}
