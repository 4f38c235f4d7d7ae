// NCCL's own calls instead of torch's process group: a graph can capture them.
//
// The library is the one that torch has loaded. It is asked for by name, not linked: its folder is
// known to torch's libraries alone.
#ifdef REFRACT_HAS_NCCL
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/collectives/collectives.h"

namespace refract {
namespace {

template <class Function>
Function nccl_symbol(const char* name) {
  static void* const library = [] {
    void* loaded = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
    return loaded ? loaded : dlopen("libnccl.so.2", RTLD_NOW);
  }();
  void* const found = library ? dlsym(library, name) : nullptr;
  if (!found) throw std::runtime_error(std::string("NCCL has no ") + name + ": " + dlerror());
  return reinterpret_cast<Function>(found);
}

struct Nccl {
#define REFRACT_NCCL(name) \
  decltype(&nccl##name) name = nccl_symbol<decltype(&nccl##name)>("nccl" #name)
  REFRACT_NCCL(GetErrorString);
  REFRACT_NCCL(GetUniqueId);
  REFRACT_NCCL(CommInitRank);
  REFRACT_NCCL(GroupStart);
  REFRACT_NCCL(GroupEnd);
  REFRACT_NCCL(Send);
  REFRACT_NCCL(Recv);
  REFRACT_NCCL(AllReduce);
  REFRACT_NCCL(AllGather);
  REFRACT_NCCL(Broadcast);
#undef REFRACT_NCCL

  void check(ncclResult_t result, const char* call) const {
    if (result == ncclSuccess) return;
    throw std::runtime_error(std::string("NCCL's ") + call + " failed: " + GetErrorString(result));
  }
};

const Nccl& nccl() {
  static const Nccl library;
  return library;
}

class NcclEngine : public Collectives {
 public:
  NcclEngine(const EngineSettings& settings, KeyValues& store)
      : rank_(settings.rank), size_(settings.size) {
    ncclUniqueId id{};
    if (rank_ == 0) {
      nccl().check(nccl().GetUniqueId(&id), "ncclGetUniqueId");
      store.set("nccl", {id.internal, id.internal + sizeof(id.internal)});
    } else {
      const std::vector<char> bytes = store.get("nccl");
      if (bytes.size() != sizeof(id.internal))
        throw std::runtime_error("NCCL's id has a wrong size");
      std::copy(bytes.begin(), bytes.end(), id.internal);
    }
    nccl().check(nccl().CommInitRank(&comm_, size_, id, rank_), "ncclCommInitRank");
    for (cudaEvent_t* event : {&before_, &after_})
      C10_CUDA_CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  }
  ~NcclEngine() override {
    for (cudaEvent_t event : {before_, after_}) cudaEventDestroy(event);
  }
  NcclEngine(const NcclEngine&) = delete;
  NcclEngine& operator=(const NcclEngine&) = delete;
  // The communicator lives as long as the process: NCCL, asked to destroy or to abort one, waits
  // for every graph that captured its calls, and those may live longer than this object.

  void all_reduce(float* data, int64_t count, Reduction reduction) override {
    const ncclRedOp_t op = reduction == Reduction::kSum ? ncclSum : ncclMin;
    nccl().check(
        nccl().AllReduce(data, data, static_cast<size_t>(count), ncclFloat, op, comm_, stream()),
        "ncclAllReduce");
  }
  void all_to_all(const void* in, void* out, int64_t bytes) override {
    const auto part = static_cast<size_t>(bytes);
    nccl().check(nccl().GroupStart(), "ncclGroupStart");
    for (int peer = 0; peer < size_; ++peer) {
      const size_t at = part * static_cast<size_t>(peer);
      nccl().check(
          nccl().Send(static_cast<const char*>(in) + at, part, ncclChar, peer, comm_, stream()),
          "ncclSend");
      nccl().check(nccl().Recv(static_cast<char*>(out) + at, part, ncclChar, peer, comm_, stream()),
                   "ncclRecv");
    }
    nccl().check(nccl().GroupEnd(), "ncclGroupEnd");
  }
  void all_gather(const void* in, void* out, int64_t bytes) override {
    nccl().check(nccl().AllGather(in, out, static_cast<size_t>(bytes), ncclChar, comm_, stream()),
                 "ncclAllGather");
  }
  void broadcast(void* data, int64_t bytes) override {
    nccl().check(
        nccl().Broadcast(data, data, static_cast<size_t>(bytes), ncclChar, 0, comm_, stream()),
        "ncclBroadcast");
  }

  void run_beside(const std::function<void()>& work) override {
    C10_CUDA_CHECK(cudaEventRecord(before_, stream()));
    C10_CUDA_CHECK(cudaStreamWaitEvent(beside_, before_));
    waiting_ = true;
    const c10::cuda::CUDAStreamGuard guard(beside_);
    work();
  }
  void wait_beside() override {
    if (!waiting_) return;
    C10_CUDA_CHECK(cudaEventRecord(after_, beside_));
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream(), after_));
    waiting_ = false;
  }

 private:
  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

  int rank_, size_;
  ncclComm_t comm_ = nullptr;
  // Before the rest of the step's kernels: what is sent late is waited for.
  c10::cuda::CUDAStream beside_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true);
  cudaEvent_t before_ = nullptr, after_ = nullptr;
  bool waiting_ = false;  // something is on beside_ that no stream has waited for
};

const bool kRegistered = [] {
  register_nccl([](const EngineSettings& settings, KeyValues& store) {
    return std::make_unique<NcclEngine>(settings, store);
  });
  return true;
}();

}  // namespace
}  // namespace refract
#endif
