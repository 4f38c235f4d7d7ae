#include "model/backward/remake.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/StorageImpl.h>
#include <torch/csrc/autograd/function.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "model/backward/recompute.h"

namespace refract {
namespace {

struct Recipe {
  c10::weak_intrusive_ptr<c10::StorageImpl> made;
  Remake remake;
};

// Those of this thread that nobody has asked for yet.
std::vector<Recipe>& recipes() {
  thread_local std::vector<Recipe> all;
  return all;
}

Remake take_recipe(const at::Tensor& value) {
  std::vector<Recipe>& all = recipes();
  Remake found;
  std::erase_if(all, [&](Recipe& recipe) {
    if (recipe.made.expired()) return true;
    const bool own = recipe.made._unsafe_get_target() == value.storage().unsafeGetStorageImpl();
    if (own) found = std::move(recipe.remake);
    return own;
  });
  return found;
}

// The memory of a storage, which every tensor that shares it sees go and come back.
class Freed {
 public:
  Freed(const at::Tensor& value, Remake remake)
      : storage_(value.storage()), bytes_(storage_.nbytes()), remake_(std::move(remake)) {
    release(storage_);
  }

  // What remake() made hands over its memory.
  void restore() {
    const at::Tensor again = remake_();
    const at::Storage& from = again.storage();
    if (from.nbytes() != bytes_)
      throw std::logic_error("a tensor came out in another size when it was computed again");
    storage_.set_data_ptr_noswap(from.set_data_ptr(at::DataPtr(nullptr, from.device())));
    storage_.set_nbytes(bytes_);
    from.set_nbytes(0);
  }

 private:
  static void release(const at::Storage& storage) {
    storage.set_data_ptr_noswap(at::DataPtr(nullptr, storage.device()));
    storage.set_nbytes(0);
  }

  at::Storage storage_;
  size_t bytes_;
  Remake remake_;
};

// What was freed until the gradient of one tensor. What was freed later comes back first: it may be
// what something freed before it is made from, as a norm's output is what a medium turns.
class FreedStack {
 public:
  void push(Freed freed) { all_.push_back(std::move(freed)); }
  // Nothing is kept from then on: the hook that holds this lives as long as the graph does.
  void restore() {
    const at::NoGradGuard no_grad;
    for (; !all_.empty(); all_.pop_back()) all_.back().restore();
  }

 private:
  std::vector<Freed> all_;
};

// The stack of the tensor that was asked for last in this thread. A tensor is known by what
// computes its gradient: one that is written in place is another from then on.
struct LastStack {
  std::weak_ptr<torch::autograd::Node> node;
  uint32_t output = 0;
  std::weak_ptr<FreedStack> stack;
};

std::shared_ptr<FreedStack> stack_of(const at::Tensor& result) {
  thread_local LastStack last;
  const auto& node = result.grad_fn();
  const uint32_t output = result.output_nr();
  std::shared_ptr<FreedStack> stack = last.stack.lock();
  if (stack && last.node.lock() == node && last.output == output) return stack;
  stack = std::make_shared<FreedStack>();
  result.register_hook([stack](const at::Tensor&) { stack->restore(); });
  last = {node, output, stack};
  return stack;
}

}  // namespace

bool frees_cheap() {
  return RecomputeScope::current() == Recompute::kCheap && at::GradMode::is_enabled();
}

void can_remake(const at::Tensor& made, Remake remake) {
  if (!frees_cheap()) return;
  recipes().push_back({made.storage().getWeakStorageImpl(), std::move(remake)});
}

void free_until_backward(const at::Tensor& value, const at::Tensor& result) {
  if (!frees_cheap()) return;
  if (Remake remake = take_recipe(value)) free_until_backward(value, result, std::move(remake));
}

void free_until_backward(const at::Tensor& value, const at::Tensor& result, Remake remake) {
  if (!frees_cheap() || !result.grad_fn() || value.numel() == 0) return;
  stack_of(result)->push(Freed(value, std::move(remake)));
}

}  // namespace refract
