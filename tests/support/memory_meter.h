// The bytes of this thread's tensors on a CPU.
#pragma once
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace refract::testing {

class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*ptr*/, int64_t size, size_t /*allocated*/, size_t /*reserved*/,
                         c10::Device /*device*/) override {
    live_ += size;
    most_ = std::max(most_, live_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t live() const { return live_; }
  int64_t most() const { return most_; }

 private:
  int64_t live_ = 0, most_ = 0;
};

// Counts from here to the end of its block.
class MeterScope {
 public:
  const MemoryMeter* operator->() const { return meter_.get(); }

 private:
  std::shared_ptr<MemoryMeter> meter_ = std::make_shared<MemoryMeter>();
  c10::DebugInfoGuard guard_{c10::DebugInfoKind::PROFILER_STATE, meter_};
};

}  // namespace refract::testing
