#include "train/state/step_parts.h"

#include <fmt/format.h>

#include <deque>
#include <string>

namespace refract {
namespace {

std::string place_in(const std::deque<Parameter>& parameters, int64_t index) {
  for (const Parameter& p : parameters) {
    if (index >= p.offset && index < p.offset + p.stored_numel())
      return fmt::format("'{}' {}", p.name, index - p.offset);
  }
  return {};
}

std::string place_in(const ParameterArena& arena, int64_t index) {
  const std::string own = place_in(arena.parameters(), index);
  return own.empty() ? place_in(arena.guides(), index) : own;
}

}  // namespace

std::vector<StepPart> step_parts(Decoder& model, const StepTensors& tensors) {
  ParameterArena& arena = model.arena();
  std::vector<StepPart> parts = {{"the loss", tensors.record.narrow(0, 0, 1)}};
  for (BufferStore::Buffer& buffer : model.buffers().all())
    parts.push_back({fmt::format("the buffer '{}'", buffer.name), buffer.tensor});
  parts.push_back({"the gradient's norm", tensors.record.narrow(0, 1, 1)});
  parts.push_back({"the step's control", tensors.control});
  const auto flat = [&](const char* name, const at::Tensor& tensor) {
    if (tensor.defined() && tensor.numel() > 0)
      parts.push_back({name, tensor, [&arena](int64_t index) { return place_in(arena, index); }});
  };
  flat("the first moments", tensors.exp_avg);
  flat("the second moments", tensors.exp_avg_sq);
  flat("the weights", arena.master());
  if (!arena.compute().is_same(arena.master()))
    flat("the weights in the compute type", arena.compute());
  // Zeros before a step and after it.
  flat("the gradients that the step left", arena.grads());
  flat("the sum of gradients that the step left", tensors.accumulated);
  return parts;
}

}  // namespace refract
