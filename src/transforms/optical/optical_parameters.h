// What the optical linear layers and the optical attention share: the parameters of a rule, the
// settings that they come to in one call of an op, and ranges as buffers of the model.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/slots.h"
#include "ops/optical/matmul/product.h"

namespace refract {

// A rule's parameters; kinds/optical.cpp describes and checks them.
struct OpticalParameters {
  int64_t q_levels = 256;
  double q_lut_min = 0.020040;
  std::vector<double> q_quantiles;
  double q_smooth_factor = 0.9;
  int64_t q_init_seed = 0;
  bool q_bypass = false;
  bool noise = true;
  // Which part of a tensor has a range of its own: a whole one, the reference's, or a row of it.
  std::string q_x_per = "tensor", q_w_per = "tensor", q_out_per = "tensor";
  // Ranges times what is learned, and whose gradient the products have: "dense", "operands".
  bool q_learn = false;
  std::string gradient = "dense";
  // The reference's defects: those of one of its two programs, or each by its own switch.
  std::string compat = "none";
  bool compat_shared_noise = false;   // one number for every element of every call
  bool compat_clipped_range = false;  // output ranges learned from the clipped output
  bool compat_scaled_qk_range =
      false;  // QK's range taken from scaled scores, used on unscaled ones

  bool fine() const { return q_x_per != "tensor" || q_w_per != "tensor" || q_out_per != "tensor"; }
  bool by_operands() const { return q_learn || gradient == "operands"; }
  // Whether its products are the plain expressions of granular_product.h.
  bool granular() const { return fine() || by_operands(); }
  bool shared_noise() const { return compat != "none" || compat_shared_noise; }
  bool clipped_range() const { return compat == "mase-pretrain" || compat_clipped_range; }
  bool scaled_qk_range() const { return compat != "none" || compat_scaled_qk_range; }
  // The attention of fine-tuning: its number is another in every call, its range of QK is measured
  // once, and its other ranges move in evaluations too.
  bool fine_tuning_attention() const { return compat == "mase-finetune"; }
};

// The op's settings for one call; `names` are those of the noise streams, one per member.
OpticalSettings optical_settings(const OpticalParameters& parameters, const ForwardContext& context,
                                 const std::vector<std::string>& names);

// A buffer for a range that is not set.
BufferStore::Buffer* declare_range(Build build, const std::string& name);
// Ranges [..., 2], one for each of `rows`, not set.
BufferStore::Buffer* declare_row_ranges(Build build, const std::string& name,
                                        const std::vector<int64_t>& rows);

}  // namespace refract
