#include "bench/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "ops/common/cuda_runtime.h"

namespace refract {
namespace {

constexpr int kWarmUp = 3, kLeastSamples = 3;
constexpr double kSampleMs = 1;  // a sample lasts about this long, so that a clock's grain is small

void synchronize(at::Device device) {
  if (device.is_cuda() && cuda_runtime()) cuda_runtime()->synchronize();
}

// Milliseconds of one sample: `runs` runs in a row.
using Sample = std::function<double(int64_t runs)>;

Timing collect(double seconds, const Sample& sample) {
  const double once = std::max(sample(1), 1e-4);
  const auto runs = std::max<int64_t>(1, std::llround(kSampleMs / once));
  std::vector<double> samples;
  double spent = 0;
  while (samples.size() < kLeastSamples || spent < seconds * 1e3) {
    const double ms = sample(runs);
    spent += ms;
    samples.push_back(ms / static_cast<double>(runs));
  }
  std::sort(samples.begin(), samples.end());
  return {samples[samples.size() / 2], samples.front(), samples.back(),
          static_cast<int64_t>(samples.size()) * runs};
}

Timing time_on_cuda(const CudaRuntime& cuda, double seconds, const std::function<void()>& work,
                    bool capture) {
  std::unique_ptr<CudaGraph> graph;
  if (capture) graph = cuda.capture(work);
  const auto begin = cuda.event(true), end = cuda.event(true);
  const auto sample = [&](int64_t runs) {
    begin->record();
    for (int64_t i = 0; i < runs; ++i) {
      if (graph) {
        graph->replay();
      } else {
        work();
      }
    }
    end->record();
    return end->milliseconds_since(*begin);
  };
  sample(1);  // the first replay uploads the graph
  return collect(seconds, sample);
}

}  // namespace

Timing time_work(at::Device device, double seconds, const std::function<void()>& work,
                 bool capture) {
  for (int i = 0; i < kWarmUp; ++i) work();
  const CudaRuntime* cuda = device.is_cuda() ? cuda_runtime() : nullptr;
  if (cuda) return time_on_cuda(*cuda, seconds, work, capture);
  return collect(seconds, [&](int64_t runs) {
    return 1e3 * seconds_of(device, [&] {
             for (int64_t i = 0; i < runs; ++i) work();
           });
  });
}

double seconds_of(at::Device device, const std::function<void()>& work) {
  synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  work();
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kCPU, at::kDouble),
                   y = b.detach().to(at::kCPU, at::kDouble);
  return x.sub(y).norm().item<double>() / std::max(y.norm().item<double>(), 1e-300);
}

double allowed_difference(at::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-4 : dtype == at::kDouble ? 1e-10 : 3e-2;
}

void check_against(const at::Tensor& result, const at::Tensor& reference, const std::string& what) {
  const double difference = relative_difference(result, reference);
  const double allowed = allowed_difference(reference.scalar_type());
  if (difference <= allowed) return;  // false for NaN
  fail("{} is wrong: it differs from its reference by {:.2e} of its norm, and {:.0e} is allowed",
       what, difference, allowed);
}

}  // namespace refract
