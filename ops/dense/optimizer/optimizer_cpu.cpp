#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/simd.h"
#include "ops/dense/optimizer/optimizer.h"

namespace refract {
namespace {

constexpr int64_t kGrain = 1 << 15;      // elements per task of an elementwise pass
constexpr int64_t kNormBlock = 1 << 16;  // elements per partial sum, whatever the thread count
constexpr int64_t kWiden = 1024;         // half types are widened in pieces of this many elements

// One step's scalars, as torch.optim.AdamW forms them.
struct Step {
  float multiplier, decay, beta1_rest, beta2, beta2_rest, step_size, root_correction, eps;
};

REFRACT_SIMD void update(float* __restrict weight, const float* __restrict grad,
                         float* __restrict m, float* __restrict v, int64_t n, Step s) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = grad[i] * s.multiplier;
    const float mean = m[i] + s.beta1_rest * (g - m[i]);
    const float square = v[i] * s.beta2 + s.beta2_rest * g * g;
    const float denominator = std::sqrt(square) / s.root_correction + s.eps;
    weight[i] = weight[i] * s.decay - s.step_size * (mean / denominator);
    m[i] = mean;
    v[i] = square;
  }
}

template <class T>
REFRACT_INLINE void widen_body(const T* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = simd::widen(in[i]);
}
template <class T>
REFRACT_INLINE void narrow_body(const float* in, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = simd::narrow<T>(in[i]);
}
REFRACT_SIMD void widen(const at::BFloat16* in, float* out, int64_t n) { widen_body(in, out, n); }
REFRACT_SIMD void narrow(const float* in, at::BFloat16* out, int64_t n) { narrow_body(in, out, n); }
void widen(const at::Half* in, float* out, int64_t n) { widen_body(in, out, n); }
void narrow(const float* in, at::Half* out, int64_t n) { narrow_body(in, out, n); }
void narrow(const float* in, float* out, int64_t n) { std::copy(in, in + n, out); }

// The range [begin, end), all of it decaying or none.
template <class T>
void update_range(float* weight, const T* grads, float* m, float* v, int64_t begin, int64_t end,
                  const Step& step) {
  if constexpr (std::is_same_v<T, float>) {
    update(weight + begin, grads + begin, m + begin, v + begin, end - begin, step);
  } else {
    float wide[kWiden];
    for (int64_t i = begin; i < end; i += kWiden) {
      const int64_t n = std::min(kWiden, end - i);
      widen(grads + i, wide, n);
      update(weight + i, wide, m + i, v + i, n, step);
    }
  }
}

void adamw_cpu(const AdamWInputs& in) {
  optimizer::check_adamw(in);
  const float* c = in.control.const_data_ptr<float>();
  const float* h = in.hyper.const_data_ptr<float>();
  if (c[1] != 0.0f) return;
  const float lr = h[0];
  Step plain{c[0],
             1.0f,
             static_cast<float>(1 - in.settings.beta1),
             static_cast<float>(in.settings.beta2),
             static_cast<float>(1 - in.settings.beta2),
             lr / h[1],
             std::sqrt(h[2]),
             static_cast<float>(in.settings.eps)};
  Step decaying = plain;
  decaying.decay = 1.0f - lr * static_cast<float>(in.settings.weight_decay);
  float* weight = in.master.mutable_data_ptr<float>();
  float* m = in.exp_avg.mutable_data_ptr<float>();
  float* v = in.exp_avg_sq.mutable_data_ptr<float>();
  dispatch_floating(in.grads.scalar_type(), "adamw_", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      T* g = in.grads.mutable_data_ptr<T>();
      at::parallel_for(0, in.master.numel(), kGrain, [&](int64_t begin, int64_t end) {
        const int64_t middle = std::clamp(in.settings.n_decay, begin, end);
        update_range(weight, g, m, v, begin, middle, decaying);
        update_range(weight, g, m, v, middle, end, plain);
        if (in.settings.zero_grads) std::fill(g + begin, g + end, T(0.0f));
      });
    }
  });
  if (!in.compute || !in.compute->defined()) return;
  dispatch_floating(in.compute->scalar_type(), "adamw_", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      T* out = in.compute->mutable_data_ptr<T>();
      at::parallel_for(0, in.master.numel(), kGrain, [&](int64_t begin, int64_t end) {
        narrow(weight + begin, out + begin, end - begin);
      });
    }
  });
}

// Sixteen sums in float64; a block's fp32 squares are widened before they are added.
REFRACT_SIMD double sum_squares(const float* x, int64_t n) {
  double lane[simd::kLanes] = {};
  int64_t j = 0;
  for (; j + simd::kLanes <= n; j += simd::kLanes) {
    for (int i = 0; i < simd::kLanes; ++i) {
      const double value = static_cast<double>(x[j + i]);
      lane[i] += value * value;
    }
  }
  for (; j < n; ++j) lane[0] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  return simd::add_lanes(lane);
}

template <class T>
double block_squares(const T* x, int64_t n) {
  if constexpr (std::is_same_v<T, float>) {
    return sum_squares(x, n);
  } else {
    float wide[kWiden];
    double sum = 0;
    for (int64_t i = 0; i < n; i += kWiden) {
      const int64_t part = std::min(kWiden, n - i);
      widen(x + i, wide, part);
      sum += sum_squares(wide, part);
    }
    return sum;
  }
}

at::Tensor global_norm_cpu(const GlobalNormInputs& in) {
  optimizer::check_norm(in);
  const at::Tensor flat = in.flat.detach().contiguous();
  const int64_t n = flat.numel(), blocks = (n + kNormBlock - 1) / kNormBlock;
  std::vector<double> partial(blocks);
  dispatch_floating(flat.scalar_type(), "global_norm", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      const T* x = flat.const_data_ptr<T>();
      at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
          partial[b] = block_squares(x + b * kNormBlock, std::min(kNormBlock, n - b * kNormBlock));
        }
      });
    }
  });
  double sum = 0;
  for (const double p : partial) sum += p;
  at::Tensor out = at::empty({}, flat.options().dtype(at::kFloat));
  *out.mutable_data_ptr<float>() = static_cast<float>(std::sqrt(sum));
  return out;
}

void step_control_cpu(const StepControlInputs& in) {
  optimizer::check_control(in);
  float* c = in.control.mutable_data_ptr<float>();
  const float n = *in.norm.const_data_ptr<float>();
  c[0] = in.max_norm > 0 ? std::min(static_cast<float>(in.max_norm) / (n + 1e-6f), 1.0f) : 1.0f;
  if (c[1] == 0.0f && !(std::isfinite(n) && std::isfinite(*in.loss.const_data_ptr<float>()))) {
    c[1] = 1.0f;
    c[2] = static_cast<float>(*in.step.const_data_ptr<int64_t>());
  }
}

REFRACT_SIMD void add_float(float* __restrict sum, const float* __restrict part, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
}

void accumulate_cpu(const AccumulateInputs& in) {
  optimizer::check_accumulate(in);
  float* to = in.sum.mutable_data_ptr<float>();
  dispatch_floating(in.part.scalar_type(), "accumulate_", [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* from = in.part.mutable_data_ptr<T>();
    at::parallel_for(0, in.sum.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        add_float(to + begin, from + begin, end - begin);
      } else if constexpr (!std::is_same_v<T, double>) {
        float wide[kWiden];
        for (int64_t i = begin; i < end; i += kWiden) {
          const int64_t n = std::min(kWiden, end - i);
          widen(from + i, wide, n);
          add_float(to + i, wide, n);
        }
      }
      std::fill(from + begin, from + end, T(0.0f));
    });
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, adamw_).cpu<adamw_cpu>();
  forms(m, global_norm).cpu<global_norm_cpu>();
  forms(m, step_control_).cpu<step_control_cpu>();
  forms(m, accumulate_).cpu<accumulate_cpu>();
}

}  // namespace refract
