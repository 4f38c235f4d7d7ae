// What several processes exchange. Two engines implement it: Gloo for memory of the CPU
// (src/distributed/gloo) and NCCL for that of GPUs (collectives_cuda.cpp, in librefract_cuda.so).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace refract {

enum class Reduction { kSum, kMin };

// Bytes under names that all processes see: how the processes of an engine find each other.
class KeyValues {
 public:
  virtual ~KeyValues() = default;
  virtual void set(const std::string& key, const std::vector<char>& value) = 0;
  // Waits until somebody has set it.
  virtual std::vector<char> get(const std::string& key) = 0;
};

// Every process calls the same functions in the same order. NCCL's calls are enqueued on the
// current stream, where a graph may capture them; Gloo's are done when they return. Where a process
// is gone Gloo throws std::runtime_error; NCCL waits for ever.
class Collectives {
 public:
  virtual ~Collectives() = default;
  // data[i] becomes the sum or the minimum over all processes: the same bits in each of them. The
  // order of a sum is the engine's.
  virtual void all_reduce(float* data, int64_t count, Reduction reduction) = 0;
  // Part j of `in` (`bytes` long) comes to lie at process j, as part `rank` of its `out`.
  virtual void all_to_all(const void* in, void* out, int64_t bytes) = 0;
  // `in` (`bytes` long) of process j comes to lie in every process as part j of `out`, where `in`
  // may lie already.
  virtual void all_gather(const void* in, void* out, int64_t bytes) = 0;
  // Process 0's.
  virtual void broadcast(void* data, int64_t bytes) = 0;

  // Does `work` so that what it enqueues begins once all is done that is on the current stream now,
  // and runs beside what comes there later; a graph may capture it. The default does it at once.
  virtual void run_beside(const std::function<void()>& work) { work(); }
  // What comes on the current stream from here on begins after all of that.
  virtual void wait_beside() {}
};

// A process of an engine to be.
struct EngineSettings {
  int rank = 0, size = 1;
  std::string address;    // Gloo: of this machine, as the others reach it
  std::string interface;  // Gloo: of the network, instead of the address where it is set
  int connect_seconds = 60;
};

using EngineFactory =
    std::function<std::unique_ptr<Collectives>(const EngineSettings&, KeyValues& store)>;

// NCCL's for the current device; empty until librefract_cuda.so is loaded, and where it was built
// without NCCL.
const EngineFactory& nccl_factory();
// For librefract_cuda.so alone.
void register_nccl(EngineFactory factory);

}  // namespace refract
