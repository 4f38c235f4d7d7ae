#include "transforms/optical/optical_parameters.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <limits>

#include "core/random.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract {

OpticalSettings optical_settings(const OpticalParameters& parameters, const ForwardContext& context,
                                 const std::vector<std::string>& names) {
  OpticalSettings s;
  s.levels = parameters.q_levels;
  s.lut_min = parameters.q_lut_min;
  s.smooth = parameters.q_smooth_factor;
  s.quantiles = parameters.q_quantiles;
  s.train = context.training;
  s.clipped_ranges = parameters.clipped_range();
  s.noise = parameters.noise;
  if (parameters.shared_noise()) {
    s.shared_noise = optical::mase_shared_noise(static_cast<uint64_t>(parameters.q_init_seed));
  }
  if (context.clock.defined()) s.clock = context.clock;
  s.seed = static_cast<int64_t>(context.seed);
  for (const std::string& name : names) {
    s.streams.push_back(static_cast<int64_t>(
        stream_id(fmt::format("optical:{}:{}", parameters.q_init_seed, name))));
  }
  return s;
}

BufferStore::Buffer* declare_range(Build build, const std::string& name) {
  const float inf = std::numeric_limits<float>::infinity();
  return build.buffers.declare(name, at::tensor({inf, -inf}, at::kFloat));
}

BufferStore::Buffer* declare_row_ranges(Build build, const std::string& name,
                                        const std::vector<int64_t>& rows) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<int64_t> sizes = rows;
  sizes.push_back(2);
  return build.buffers.declare(name,
                               at::tensor({inf, -inf}, at::kFloat).expand(sizes).contiguous());
}

}  // namespace refract
