#include "transforms/optical/optical_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "core/error.h"
#include "model/dense.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/quantize/mase_noise.h"
#include "ops/optical/quantize/quantize.h"
#include "transforms/media/observer.h"
#include "transforms/optical/granular_attention.h"

namespace refract {
namespace {

class OpticalAttention : public AttentionCore {
 public:
  OpticalAttention(Build build, const AttentionSpec& spec, const OpticalParameters& parameters)
      : spec_(spec), parameters_(parameters) {
    const float inf = std::numeric_limits<float>::infinity();
    ranges_ = build.buffers.declare(
        spec.name + ".ranges",
        at::tensor({inf, -inf}, at::kFloat).expand({attention_op::kRoles, 2}).contiguous());
    if (parameters.fine_tuning_attention())
      calls_ = build.buffers.declare(spec.name + ".calls", at::zeros({1}, at::kDouble));
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override {
    const auto [k, v] = attended(context, spec_.layer, k_BTKD, v_BTKD);
    if (medium_observer()) {
      return observed_attention(parameters_, spec_, q_BTHD, k, v, {ranges_->tensor, at::Tensor()});
    }
    OpticalAttentionSettings settings;
    static_cast<OpticalSettings&>(settings) =
        optical_settings(parameters_, context, {spec_.name + ".qk", spec_.name + ".av"});
    settings.scale = spec_.scale;
    settings.scaled_score_range = parameters_.scaled_qk_range();
    settings.ranges_set = ranges_set_;
    const at::Tensor y = calls_ ? fine_tuned(q_BTHD, k, v, settings)
                                : optical_attention(q_BTHD, k, v, ranges_->tensor, settings);
    ranges_set_ |= settings.train;
    return y.reshape({y.size(0), y.size(1), spec_.num_heads * spec_.head_dim});
  }

 private:
  // As the reference's fine-tuning does it: QK and AV each draw with a seed that the last call
  // left, and every call but the first finds QK's range as it was.
  at::Tensor fine_tuned(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        OpticalAttentionSettings& settings) {
    const at::Tensor seed =
        calls_->tensor.round().to(at::kLong).mul(2).add(parameters_.q_init_seed);
    settings.call_noise = mase_shared_noise(at::cat({seed, seed.add(1)}));
    settings.train = true;
    const at::Tensor& ranges = ranges_->tensor;
    const at::Tensor before = ranges.select(0, attention_op::kScore).clone();
    at::Tensor y = optical_attention(q, k, v, ranges, settings);
    const at::Tensor scores = ranges.select(0, attention_op::kScore);
    scores.copy_(composite::optical_effective(before, scores));
    calls_->tensor.add_(1);
    return y;
  }

  AttentionSpec spec_;
  OpticalParameters parameters_;
  BufferStore::Buffer* ranges_;
  // The number of calls so far, where noise depends on it; float64 as any statistic, so that paths
  // between models may average it.
  BufferStore::Buffer* calls_ = nullptr;
  bool ranges_set_ = false;  // by a training call of ours, so known without asking the device
};

}  // namespace

std::unique_ptr<AttentionCore> make_optical_attention(Build build, const AttentionSpec& spec,
                                                      const OpticalParameters& parameters) {
  if (parameters.q_bypass) return std::make_unique<SdpaAttention>(spec);
  if (spec.dropout > 0) {
    fail_usage("'{}': optical attention has no dropout; set model.attention_dropout = 0",
               spec.name);
  }
  if (parameters.granular()) return make_granular_attention(build, spec, parameters);
  return std::make_unique<OpticalAttention>(build, spec, parameters);
}

}  // namespace refract
