#include "runs/inspect/tensor_meter.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace refract {
namespace {

TensorMeter*& current() {
  thread_local TensorMeter* meter = nullptr;
  return meter;
}

struct Begun : at::ObserverContext {
  explicit Begun(int64_t bytes) : scratch(bytes) {}
  int64_t scratch;
};

}  // namespace

TensorMeter::TensorMeter(const std::vector<at::Tensor>& known, Scratch scratch)
    : scratch_(std::move(scratch)), before_(std::exchange(current(), this)) {
  for (const at::Tensor& tensor : known) known_.insert(tensor.storage().unsafeGetStorageImpl());
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begun, ended)
                                           .needsInputs(true)
                                           .needsOutputs(true)
                                           .scopes({at::RecordScope::FUNCTION}));
}

TensorMeter::~TensorMeter() {
  at::removeCallback(handle_);
  current() = before_;
}

int64_t TensorMeter::live() {
  int64_t bytes = 0;
  std::erase_if(seen_, [&](const auto& entry) {
    if (entry.second.expired()) return true;
    bytes += static_cast<int64_t>(entry.first->nbytes());
    return false;
  });
  return bytes;
}

void TensorMeter::see(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage()) return;
  const c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  if (known_.contains(storage)) return;
  seen_.try_emplace(storage, tensor.storage().getWeakStorageImpl());
}

void TensorMeter::after_op(const at::RecordFunction& op, int64_t scratch) {
  for (const c10::IValue& output : op.outputs()) {
    if (output.isTensor()) {
      see(output.toTensor());
    } else if (output.isTensorList()) {
      for (const at::Tensor& tensor : output.toTensorVector()) see(tensor);
    }
  }
  most_ = std::max(most_, live() + scratch);
}

// An op's inputs are there for as long as it has not begun.
std::unique_ptr<at::ObserverContext> TensorMeter::begun(const at::RecordFunction& op) {
  return std::make_unique<Begun>(current()->scratch_(op));
}

void TensorMeter::ended(const at::RecordFunction& op, at::ObserverContext* context) {
  current()->after_op(op, static_cast<const Begun*>(context)->scratch);
}

}  // namespace refract
