// Simulated optical compute (Anderson et al., "Optical Transformers", arXiv 2302.10360): linear
// layers y = Q_noisy(Q(x) . Q_lut(W)^T) + b with the dense layer's gradient, see
// ops/optical/matmul/product.h and docs/optical.md.
//
// A layer's ranges are buffers of the model: "<name>.x_range", "<name>.w_range" and
// "<name>.out_range", float [2], (+inf, -inf) until they are set. They move in training only. The
// members of a group share the x_range of the first one.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"
#include "ops/optical/matmul/product.h"
#include "transforms/kind.h"

namespace refract {

// A rule's parameters. The attention part of the kind reads them too.
struct OpticalParameters {
  int64_t q_levels = 256;
  double q_lut_min = 0.020040;
  std::vector<double> q_quantiles;
  double q_smooth_factor = 0.9;
  int64_t q_init_seed = 0;
  bool q_bypass = false;
  bool noise = true;
  // The reference's defects, each by its own switch; compat = "mase" is all of them.
  std::string compat = "none";
  bool compat_shared_noise = false;   // one number for every element of every call
  bool compat_clipped_range = false;  // output ranges learned from the clipped output
  bool compat_scaled_qk_range =
      false;  // QK's range taken from scaled scores, used on unscaled ones

  bool shared_noise() const { return compat == "mase" || compat_shared_noise; }
  bool clipped_range() const { return compat == "mase" || compat_clipped_range; }
  bool scaled_qk_range() const { return compat == "mase" || compat_scaled_qk_range; }
};

// The op's settings for one call; `names` are those of the noise streams, one per member.
OpticalSettings optical_settings(const OpticalParameters& parameters, const ForwardContext& context,
                                 const std::vector<std::string>& names);

// A buffer for a range that is not set.
BufferStore::Buffer* declare_range(Build build, const std::string& name);

std::unique_ptr<Kind> make_optical();

}  // namespace refract
