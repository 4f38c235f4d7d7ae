#include "train/state/step_check.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/nonzero.h>
#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace refract {
namespace {

// As whole numbers of the same width: a NaN equals itself, and -0 is not 0.
at::Tensor bits_of(const at::Tensor& tensor) {
  const at::Tensor whole = tensor.detach().contiguous();
  switch (whole.element_size()) {
    case 1:
      return whole.view(at::kByte);
    case 2:
      return whole.view(at::kShort);
    case 4:
      return whole.view(at::kInt);
    default:
      return whole.view(at::kLong);
  }
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return at::equal(bits_of(a), bits_of(b));
}

StepDifference difference(const StepPart& part, const at::Tensor& other) {
  const at::Tensor apart = bits_of(part.tensor).ne(bits_of(other)).flatten().nonzero();
  const int64_t first = apart.select(0, 0).item<int64_t>();
  return {part.name, apart.size(0), part.place ? part.place(first) : std::string()};
}

}  // namespace

std::string StepFault::describe() const {
  std::string text;
  for (const StepDifference& d : differences) {
    if (!text.empty()) text.append("; ");
    text.append(d.part);
    if (d.elements == 1 && !d.first.empty()) text.append(fmt::format(" (at {})", d.first));
    if (d.elements > 1) {
      text.append(fmt::format(" ({} values", d.elements));
      if (!d.first.empty()) text.append(fmt::format(", the first at {}", d.first));
      text.append(")");
    }
  }
  return text;
}

StepCheck::StepCheck(std::vector<StepPart> parts) : parts_(std::move(parts)) { before_ = copies(); }

std::vector<at::Tensor> StepCheck::copies() const {
  std::vector<at::Tensor> all;
  all.reserve(parts_.size());
  for (const StepPart& part : parts_) all.push_back(part.tensor.detach().clone());
  return all;
}

void StepCheck::put_back() {
  for (size_t i = 0; i < parts_.size(); ++i) parts_[i].tensor.detach().copy_(before_[i]);
}

bool StepCheck::same(const std::vector<at::Tensor>& other) const {
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!same_bits(parts_[i].tensor, other[i])) return false;
  }
  return true;
}

std::vector<StepDifference> StepCheck::differences(const std::vector<at::Tensor>& other) const {
  std::vector<StepDifference> found;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!same_bits(parts_[i].tensor, other[i])) found.push_back(difference(parts_[i], other[i]));
  }
  return found;
}

std::optional<StepFault> StepCheck::run(const std::function<void()>& compute) {
  compute();
  const std::vector<at::Tensor> first = copies();
  put_back();
  compute();
  if (same(first)) return std::nullopt;
  StepFault fault;
  fault.differences = differences(first);
  const std::vector<at::Tensor> second = copies();
  put_back();
  compute();
  if (same(second)) {
    fault.wrong = 1;
  } else if (same(first)) {
    fault.wrong = 2;
  } else {
    put_back();
  }
  return fault;
}

std::optional<std::string> verify_step(int64_t step, std::vector<StepPart> parts,
                                       const std::function<void()>& compute) {
  StepCheck check(std::move(parts));
  const std::optional<StepFault> fault = check.run(compute);
  if (!fault) return std::nullopt;
  if (fault->wrong == 0) {
    fail(
        "step {} was computed three times from the same state, and no two results have the same "
        "bits. What differed: {}. Memory or a processor of this machine may be failing, or a layer "
        "draws numbers of its own; the run stops with the state from before the step",
        step, fault->describe());
  }
  std::string said = fmt::format(
      "step {} gave other bits when it was computed again: {}. The {} of three computations was "
      "wrong; the run goes on with what the other two agree on. Memory or a processor of this "
      "machine may be failing",
      step, fault->describe(), fault->wrong == 1 ? "first" : "second");
  log_warning("{}", said);
  return said;
}

}  // namespace refract
