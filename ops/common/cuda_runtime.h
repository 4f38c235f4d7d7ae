// How the program, which links no CUDA, uses it. librefract_cuda.so implements this interface and
// registers it when it is opened; this header includes nothing of CUDA.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace refract {

// A captured sequence of launches. It owns the memory that its tensors lie in: what was allocated
// while capturing stays valid, and is overwritten by every replay.
class CudaGraph {
 public:
  virtual ~CudaGraph() = default;
  virtual void replay() = 0;  // on the calling thread's current stream
};

// A point in a stream's work.
class CudaEvent {
 public:
  virtual ~CudaEvent() = default;
  virtual void record() = 0;                                            // on the current stream
  virtual bool done() const = 0;                                        // never recorded: true
  virtual void wait() const = 0;                                        // blocks the host
  virtual double milliseconds_since(const CudaEvent& start) const = 0;  // waits for both
};

class CudaRuntime {
 public:
  virtual ~CudaRuntime() = default;

  virtual int device_count() const = 0;
  virtual int device() const = 0;

  // Of the current device; memory in bytes.
  virtual std::string device_name() const = 0;
  virtual int multiprocessors() const = 0;
  virtual int compute_capability() const = 0;  // 90 for an H100
  // Whether this library holds code for it: any at all, and the kernels for 9.0 alone.
  virtual bool has_kernels() const = 0;
  virtual bool has_hopper_kernels() const = 0;
  virtual int64_t total_memory() const = 0;
  virtual int64_t memory_allocated() const = 0;
  virtual int64_t peak_memory_allocated() const = 0;  // by tensors, since the last reset_peak()
  virtual void reset_peak() const = 0;
  virtual void empty_cache() const = 0;

  virtual void synchronize() const = 0;
  // Makes a stream of the pool current for this thread and keeps it so. Call it once, before the
  // parameters' first use: autograd remembers the stream of each, and the default stream can't be
  // captured.
  virtual void use_side_stream() const = 0;

  // Records what `work` launches, also from autograd's threads, without running it. Run it a few
  // times before (libraries choose and allocate at first use). The current stream is captured, so
  // use_side_stream() first. `work` must not ask for values on the host, nor copy from pageable
  // memory. An exception in it ends the capture and comes through. With `beside` the graph lies in
  // that graph's memory: for two that are never replayed at once and of which neither reads what
  // the other left in it.
  virtual std::unique_ptr<CudaGraph> capture(const std::function<void()>& work,
                                             const CudaGraph* beside = nullptr) const = 0;

  // A page-locked host tensor: copies from it run beside the host.
  virtual at::Tensor empty_pinned(at::IntArrayRef sizes, at::ScalarType dtype) const = 0;
  // to (device) = from (pinned), enqueued on the current stream. `from` may be written again once
  // an event recorded after this is done.
  virtual void copy_async(const at::Tensor& to, const at::Tensor& from) const = 0;
  // timing: milliseconds_since() can be asked; such an event costs a little more.
  virtual std::unique_ptr<CudaEvent> event(bool timing = false) const = 0;

  // Deterministic algorithms in all of torch: cuDNN's attention gives way to flash attention, whose
  // backward then sums in a fixed order. Ours are always deterministic.
  virtual void set_deterministic(bool on) const = 0;
  // The order in which scaled_dot_product_attention tries its kernels: cuDNN's, flash, memory
  // efficient, plain; or flash first.
  virtual void prefer_cudnn_attention(bool on) const = 0;
};

// Null where there is no usable GPU or no librefract_cuda.so; the first call looks. Ask this before
// anything asks torch about CUDA: torch remembers a first answer of no for ever.
const CudaRuntime* cuda_runtime();

// Whether tensors can live on a GPU. True without cuda_runtime() where torch's own CUDA library is
// installed and ours was not built: ops then run in their composite forms, without graphs.
bool cuda_available();

// Why cuda_runtime() is null, one line; empty where it is not.
const std::string& cuda_unavailable_reason();

// For librefract_cuda.so alone.
void register_cuda_runtime(std::unique_ptr<CudaRuntime> runtime);

}  // namespace refract
