#include "model/frozen_values.h"

#include <ATen/ops/cat.h>

#include <stdexcept>

namespace refract {

at::Tensor frozen_values(const ParameterArena& arena) {
  const int64_t first = arena.master().numel();
  return arena.compute().narrow(0, first, arena.compute().numel() - first);
}

at::Tensor all_values(const ParameterArena& arena) {
  const at::Tensor& master = arena.master();
  const at::Tensor frozen = frozen_values(arena);
  return frozen.numel() == 0 ? master.clone() : at::cat({master, frozen.to(master.scalar_type())});
}

void set_all_values(ParameterArena& arena, const at::Tensor& values) {
  const at::Tensor& master = arena.master();
  if (values.numel() != arena.compute().numel())
    throw std::logic_error("these are the values of another arena");
  master.copy_(values.narrow(0, 0, master.numel()));
  const at::Tensor frozen = frozen_values(arena);
  if (frozen.numel() > 0) frozen.copy_(values.narrow(0, master.numel(), frozen.numel()));
  arena.refresh_compute();
}

}  // namespace refract
