#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/dense/optimizer/sgd.h"

namespace refract {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements per task

struct Step {
  float multiplier, lr, momentum, decay;
  bool nesterov;
};

// The range [begin, end), all of it decaying or none.
template <class T>
void update(float* weight, const T* grad, float* buffer, int64_t begin, int64_t end, Step s) {
  for (int64_t i = begin; i < end; ++i) {
    const float d = static_cast<float>(grad[i]) * s.multiplier + s.decay * weight[i];
    const float b = s.momentum * buffer[i] + d;
    buffer[i] = b;
    weight[i] -= s.lr * (s.nesterov ? d + s.momentum * b : b);
  }
}

void sgd_cpu(const SgdInputs& in) {
  sgd_op::check(in);
  const float* control = in.control.const_data_ptr<float>();
  if (control[1] != 0.0f) return;
  const Step plain{control[0], in.hyper.const_data_ptr<float>()[0],
                   static_cast<float>(in.settings.momentum), 0.0f, in.settings.nesterov};
  Step decaying = plain;
  decaying.decay = static_cast<float>(in.settings.weight_decay);
  float* weight = in.master.mutable_data_ptr<float>();
  float* buffer = in.buffer.mutable_data_ptr<float>();
  dispatch_floating(in.grads.scalar_type(), "sgd_", [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* grads = in.grads.mutable_data_ptr<T>();
    at::parallel_for(0, in.master.numel(), kGrain, [&](int64_t begin, int64_t end) {
      const int64_t middle = std::clamp(in.settings.n_decay, begin, end);
      update(weight, grads, buffer, begin, middle, decaying);
      update(weight, grads, buffer, middle, end, plain);
      if (in.settings.zero_grads) std::fill(grads + begin, grads + end, T(0.0f));
    });
  });
  if (in.compute && in.compute->defined()) in.compute->copy_(in.master);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, sgd_).cpu<sgd_cpu>(); }

}  // namespace refract
