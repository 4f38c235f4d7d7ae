// Random numbers for layers, drawn from the run's streams.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/slots.h"

namespace refract {

// An independent standard normal number for every element of `like` [B, ...], in its type and on
// its device, without a gradient. `stream` names the layer and the role: stream_id(spec.name +
// ".noise"). The numbers depend on the run's seed, the stream, the step and the element's index in
// the global batch alone, so that any cut of the batch into micro-batches, any device and any
// recomputation draw the same ones (Box and Muller 1958, of two Philox words per element).
at::Tensor standard_normal(const ForwardContext& context, const at::Tensor& like, uint64_t stream);

}  // namespace refract
