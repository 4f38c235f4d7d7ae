// Calls into ops of the library `refract` from C++, through the dispatcher.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include <optional>

namespace refract {

// The handle of "refract::name"; keep it in a static, looking it up takes a lock.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline bool wants_gradient(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
inline bool wants_gradient(const std::optional<at::Tensor>& t) {
  return t.has_value() && wants_gradient(*t);
}

// Whether autograd has to record: most calls of inference skip its bookkeeping by asking first.
template <class... T>
bool any_gradient(const T&... tensors) {
  return at::GradMode::is_enabled() && (wants_gradient(tensors) || ...);
}

// The tensor of an optional one, undefined where there is none.
inline at::Tensor value_or_undefined(const std::optional<at::Tensor>& t) {
  return t.has_value() ? *t : at::Tensor();
}
inline std::optional<at::Tensor> optional_of(const at::Tensor& t) {
  return t.defined() ? std::optional<at::Tensor>(t) : std::nullopt;
}

}  // namespace refract
