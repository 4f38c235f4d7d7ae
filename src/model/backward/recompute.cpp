#include "model/backward/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <stdexcept>
#include <utility>

#include "core/error.h"

namespace refract {
namespace {

using torch::autograd::variable_list;
using Buffers = std::vector<BufferStore::Buffer*>;

Recompute& now() {
  thread_local Recompute what = Recompute::kNone;
  return what;
}

bool& second_time() {
  thread_local bool again = false;
  return again;
}

class SecondTime {
 public:
  SecondTime() : before_(std::exchange(second_time(), true)) {}
  ~SecondTime() { second_time() = before_; }
  SecondTime(const SecondTime&) = delete;
  SecondTime& operator=(const SecondTime&) = delete;

 private:
  bool before_;
};

// [n], undefined where there are none.
at::Tensor values_of(const Buffers& buffers) {
  if (buffers.empty()) return {};
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> flat;
  for (const BufferStore::Buffer* buffer : buffers) {
    if (buffer->tensor.scalar_type() != at::kFloat) {
      fail("train.recompute: '{}' is no float state, which a second computation could not find",
           buffer->name);
    }
    flat.push_back(buffer->tensor.reshape({-1}));
  }
  return at::cat(flat);
}

void set_values(const Buffers& buffers, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> to, from;
  int64_t first = 0;
  for (const BufferStore::Buffer* buffer : buffers) {
    const int64_t count = buffer->tensor.numel();
    to.push_back(buffer->tensor);
    from.push_back(values.narrow(0, first, count).view(buffer->tensor.sizes()));
    first += count;
  }
  at::_foreach_copy_(to, from);
}

// Leaves of a graph of their own.
std::vector<at::Tensor> cut_off(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& tensor : tensors)
    leaves.push_back(tensor.detach().requires_grad_(tensor.requires_grad()));
  return leaves;
}

class RecomputedNode : public torch::autograd::Node {
 public:
  RecomputedNode(const std::vector<at::Tensor>& inputs, Buffers buffers, at::Tensor before,
                 Segment segment)
      : Node(torch::autograd::collect_next_edges(inputs)),
        inputs_(cut_off(inputs)),
        buffers_(std::move(buffers)),
        before_(std::move(before)),
        segment_(std::move(segment)) {}

  std::string name() const override { return "RecomputedBackward"; }
  void release_variables() override {
    inputs_.clear();
    before_ = at::Tensor();
    segment_ = nullptr;
  }

 private:
  variable_list apply(variable_list&& grads) override {
    if (!segment_) throw std::logic_error("a recomputed segment goes backward once");
    variable_list outputs, known;
    const std::vector<at::Tensor> again = compute_again();
    for (size_t i = 0; i < again.size(); ++i) {
      if (!again[i].requires_grad() || !grads[i].defined()) continue;
      outputs.push_back(again[i]);
      known.push_back(grads[i]);
    }
    torch::autograd::backward(outputs, known);
    variable_list own;
    for (at::Tensor& input : inputs_) {
      own.push_back(input.grad());
      input.mutable_grad() = at::Tensor();
    }
    return own;
  }

  // A range that was not set before the first computation was set by it, from the very values that
  // the second one sees; a layer that knows its ranges to be set may not find them unset.
  std::vector<at::Tensor> compute_again() {
    const at::Tensor after = values_of(buffers_);
    if (after.defined()) {
      const at::NoGradGuard no_grad;
      set_values(buffers_, at::where(before_.isinf(), after, before_));
    }
    const at::AutoGradMode with_gradients(true);
    const SecondTime again;
    std::vector<at::Tensor> outputs = segment_(inputs_);
    if (after.defined()) set_values(buffers_, after);
    return outputs;
  }

  std::vector<at::Tensor> inputs_;
  Buffers buffers_;
  at::Tensor before_;
  Segment segment_;
};

}  // namespace

Recompute recompute_of(const std::string& name) {
  if (name == "layer") return Recompute::kLayer;
  return name == "cheap" ? Recompute::kCheap : Recompute::kNone;
}

RecomputeScope::RecomputeScope(Recompute what) : before_(std::exchange(now(), what)) {}
RecomputeScope::~RecomputeScope() { now() = before_; }
Recompute RecomputeScope::current() { return now(); }

bool computes_again() { return second_time(); }

// The first computation records a graph too, and throws it away: without one some layers choose
// other kernels, and the results would differ in their last bits.
std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, const Buffers& buffers,
                                   const Segment& segment) {
  const at::Tensor before = values_of(buffers);
  std::vector<at::Tensor> outputs;
  bool learns = false;
  for (const at::Tensor& output : segment(cut_off(inputs))) {
    learns = learns || output.requires_grad();
    outputs.push_back(output.detach());
  }
  if (!learns) return outputs;
  const std::shared_ptr<RecomputedNode> node(new RecomputedNode(inputs, buffers, before, segment),
                                             torch::autograd::deleteNode);
  torch::autograd::set_history(outputs, node);
  return outputs;
}

}  // namespace refract
