// Counts the memory of tensors that have none: those of the meta device.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace refract {

// Follows every tensor that an op of this thread returns while it lives, the backward pass of the
// meta device included. What an op needs for itself alone does not show: `scratch` says it, in
// bytes, of an op that is about to run.
class TensorMeter {
 public:
  using Scratch = std::function<int64_t(const at::RecordFunction&)>;
  // The storages of `known` are counted by somebody else.
  TensorMeter(const std::vector<at::Tensor>& known, Scratch scratch);
  ~TensorMeter();
  TensorMeter(const TensorMeter&) = delete;
  TensorMeter& operator=(const TensorMeter&) = delete;

  // Bytes of the tensors that are there now, and the most that were there at once.
  int64_t live();
  int64_t most() const { return most_; }

 private:
  void after_op(const at::RecordFunction& op, int64_t scratch);
  void see(const at::Tensor& tensor);
  static std::unique_ptr<at::ObserverContext> begun(const at::RecordFunction& op);
  static void ended(const at::RecordFunction& op, at::ObserverContext* context);

  using Storage = c10::weak_intrusive_ptr<c10::StorageImpl>;
  std::unordered_set<const c10::StorageImpl*> known_;
  std::unordered_map<const c10::StorageImpl*, Storage> seen_;  // the addresses stay taken
  Scratch scratch_;
  int64_t most_ = 0;
  at::CallbackHandle handle_ = 0;
  TensorMeter* before_ = nullptr;
};

}  // namespace refract
