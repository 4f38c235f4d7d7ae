#include "analysis/curvature/directions.h"

#include <ATen/ops/zeros.h>

#include <functional>

namespace refract {
namespace {

// fill(parameter, numbers) gives what stands in the parameter's place; an undefined one leaves 0.
using Fill = std::function<at::Tensor(const Parameter& parameter, const at::Tensor& numbers)>;

at::Tensor drawn_direction(const Decoder& model, uint64_t seed, const std::string& name,
                           const Fill& fill) {
  const ParameterArena& arena = model.arena();
  at::Tensor flat = at::zeros({arena.core_size()}, arena.master().options().device(at::kCPU));
  for (const Parameter& parameter : arena.parameters()) {
    if (!parameter.trainable) continue;
    std::string stream = "curvature:";
    stream.append(name).append(":").append(parameter.name);
    const at::Tensor numbers = fill(parameter, draw_normal(parameter.shape, seed, stream, 1));
    if (!numbers.defined()) continue;
    // Rows of padding come last.
    flat.narrow(0, parameter.offset, parameter.numel()).copy_(numbers.reshape({-1}));
  }
  return flat;
}

}  // namespace

at::Tensor random_signs(const Decoder& model, uint64_t seed, const std::string& name) {
  return drawn_direction(model, seed, name, [](const Parameter&, const at::Tensor& numbers) {
    return numbers.ge(0).to(numbers.scalar_type()).mul(2).sub(1);
  });
}

at::Tensor filter_normalized(const Decoder& model, uint64_t seed, const std::string& name) {
  const auto fill = [&](const Parameter& parameter, const at::Tensor& numbers) -> at::Tensor {
    if (parameter.shape.size() < 2) return {};
    const at::Tensor own = model.arena().value(&parameter).to(at::kCPU, at::kDouble);
    const at::Tensor wide = numbers.to(at::kDouble);
    const at::Tensor length = wide.norm(2, {-1}, /*keepdim=*/true);
    return wide.mul(own.norm(2, {-1}, /*keepdim=*/true)).div(length);
  };
  return drawn_direction(model, seed, name, fill);
}

}  // namespace refract
