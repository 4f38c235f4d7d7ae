// The range of a tile's inputs: each vector's own, a running one, or a parameter.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/slots.h"
#include "transforms/analog/analog_parameters.h"
#include "transforms/analog/tiles.h"

namespace refract {

class InputRange {
 public:
  InputRange(Build build, const LinearSpec& spec, const AnalogParameters& parameters);

  // r for this call, in x's type: [M, tiles] of each vector, else [tiles]. In training a running or
  // learned range is set or moved. x [M, K] is float or double.
  at::Tensor of(const ForwardContext& context, const at::Tensor& x, const TileGrid& grid);
  // What of() gives does not depend on the vector.
  bool fixed() const { return parameters_.x_range != "dynamic"; }
  // The learned parameter as autograd sees it; undefined where there is none.
  at::Tensor parameter() const { return learned_ ? arena_.leaf(learned_) : at::Tensor(); }
  // Starting value of a learned range, before any data.
  void initialize();
  // The buffer of a running range; undefined where there is none.
  at::Tensor buffer() const { return running_ ? running_->tensor : at::Tensor(); }

 private:
  at::Tensor running(const ForwardContext& context, const at::Tensor& x, const TileGrid& grid);
  at::Tensor learned(const ForwardContext& context, const at::Tensor& x, const TileGrid& grid);

  AnalogParameters parameters_;
  ParameterArena& arena_;
  BufferStore::Buffer *running_ = nullptr, *batches_ = nullptr;
  Parameter* learned_ = nullptr;
};

}  // namespace refract
