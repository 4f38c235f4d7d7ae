#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <exception>

#include "ops/common/cuda_runtime.h"
#include "ops/common/image/kernel_image.h"

namespace refract {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;
using allocator::DeviceStats;

class Graph : public CudaGraph {
 public:
  void replay() override { graph.replay(); }
  at::cuda::CUDAGraph graph;
};

class Event : public CudaEvent {
 public:
  explicit Event(bool timing)
      : event_(timing ? cudaEventDefault : cudaEventDisableTiming), timing_(timing) {}

  void record() override { event_.record(c10::cuda::getCurrentCUDAStream()); }
  bool done() const override { return event_.query(); }
  void wait() const override {
    if (event_.isCreated()) event_.synchronize();
  }
  double milliseconds_since(const CudaEvent& start) const override {
    const auto& first = dynamic_cast<const Event&>(start);
    TORCH_CHECK(timing_ && first.timing_, "refract: both events must be made with timing = true");
    first.wait();
    wait();
    return first.event_.elapsed_time(event_);
  }

 private:
  mutable at::cuda::CUDAEvent event_;
  bool timing_;
};

DeviceStats statistics() { return allocator::getDeviceStats(c10::cuda::current_device()); }
constexpr size_t kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

class Runtime : public CudaRuntime {
 public:
  Runtime() {
    // cuBLAS reads this when its first handle is made: with one workspace per stream its results
    // do not depend on what else runs.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  }

  int device_count() const override { return c10::cuda::device_count(); }
  int device() const override { return c10::cuda::current_device(); }

  std::string device_name() const override { return at::cuda::getCurrentDeviceProperties()->name; }
  int multiprocessors() const override {
    return at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
  }
  int compute_capability() const override {
    const cudaDeviceProp* properties = at::cuda::getCurrentDeviceProperties();
    return properties->major * 10 + properties->minor;
  }
  bool has_kernels() const override { return has_kernel_image(); }
  bool has_hopper_kernels() const override { return has_hopper_image(); }
  int64_t total_memory() const override {
    return static_cast<int64_t>(at::cuda::getCurrentDeviceProperties()->totalGlobalMem);
  }
  int64_t memory_allocated() const override {
    ready();
    return statistics().allocated_bytes[kAll].current;
  }
  int64_t peak_memory_allocated() const override {
    ready();
    return statistics().allocated_bytes[kAll].peak;
  }
  void reset_peak() const override {
    ready();
    allocator::resetPeakStats(c10::cuda::current_device());
  }
  void empty_cache() const override {
    ready();
    allocator::emptyCache();
  }

  void synchronize() const override { c10::cuda::device_synchronize(); }
  void use_side_stream() const override {
    ready();
    if (c10::cuda::getCurrentCUDAStream() != c10::cuda::getDefaultCUDAStream()) return;
    const auto stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false);
    // What was enqueued so far, parameters for instance, comes first.
    at::cuda::CUDAEvent before;
    before.record(c10::cuda::getCurrentCUDAStream());
    before.block(stream);
    c10::cuda::setCurrentCUDAStream(stream);
  }

  std::unique_ptr<CudaGraph> capture(const std::function<void()>& work,
                                     const CudaGraph* beside) const override {
    ready();
    TORCH_CHECK(c10::cuda::getCurrentCUDAStream() != c10::cuda::getDefaultCUDAStream(),
                "refract: the default stream can't be captured; call use_side_stream() first");
    c10::cuda::device_synchronize();
    // What earlier steps left cached can't serve the graph's own pool.
    allocator::emptyCache();
    auto graph = std::make_unique<Graph>();
    // Thread local: a data or NCCL thread may go on asking CUDA. Autograd's thread launches into
    // the same stream and is captured in every mode.
    auto pool = at::cuda::MempoolId_t{0, 0};
    if (beside) pool = const_cast<Graph&>(dynamic_cast<const Graph&>(*beside)).graph.pool();
    graph->graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    std::exception_ptr failure;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      graph->graph.capture_end();
    } catch (...) {
      if (!failure) throw;  // the first failure says more
    }
    if (failure) std::rethrow_exception(failure);
    return graph;
  }

  at::Tensor empty_pinned(at::IntArrayRef sizes, at::ScalarType dtype) const override {
    ready();
    return at::empty(sizes, at::TensorOptions().dtype(dtype).device(at::kCPU).pinned_memory(true));
  }
  void copy_async(const at::Tensor& to, const at::Tensor& from) const override {
    to.copy_(from, /*non_blocking=*/true);
  }
  std::unique_ptr<CudaEvent> event(bool timing) const override {
    return std::make_unique<Event>(timing);
  }

  void set_deterministic(bool on) const override {
    at::Context& context = at::globalContext();
    context.setDeterministicAlgorithms(on, /*warn_only=*/false);
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(on);
    context.setBenchmarkCuDNN(false);
  }
  void prefer_cudnn_attention(bool on) const override {
    using at::SDPBackend;
    at::Context& context = at::globalContext();
    context.setSDPUseCuDNN(on);
    std::vector<int64_t> order;
    if (on) order.push_back(static_cast<int64_t>(SDPBackend::cudnn_attention));
    for (const auto backend :
         {SDPBackend::flash_attention, SDPBackend::efficient_attention, SDPBackend::math}) {
      order.push_back(static_cast<int64_t>(backend));
    }
    if (!on) order.push_back(static_cast<int64_t>(SDPBackend::cudnn_attention));
    order.push_back(static_cast<int64_t>(SDPBackend::overrideable));
    context.setSDPPriorityOrder(order);
  }

 private:
  // The allocator exists only once torch has made its first CUDA context.
  static void ready() { at::globalContext().lazyInitDevice(at::kCUDA); }
};

struct Registration {
  Registration() { register_cuda_runtime(std::make_unique<Runtime>()); }
} registration;

}  // namespace
}  // namespace refract
