// Silent corruption: a step that is computed again from the same state must give the same bits.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace refract {

// Something that a step changes, in the order in which a step computes them.
struct StepPart {
  std::string name;   // "the loss"
  at::Tensor tensor;  // the live one
  // What element `index` of it belongs to, for a message; may be empty.
  std::function<std::string(int64_t index)> place = {};
};

// Where two computations of one step went apart.
struct StepDifference {
  std::string part;      // StepPart::name
  int64_t elements = 0;  // whose bits differ
  std::string first;     // the place of the first of them
};

struct StepFault {
  int wrong = 0;  // the computation that no other agrees with, 1 or 2; 0: no two of three agree
  std::vector<StepDifference> differences;  // between the first two
  // "the loss; the weights (12 values, the first at 'model.norm.weight' 3)".
  std::string describe() const;
};

// Holds a copy of the parts' state before a step, and while it runs a second one.
class StepCheck {
 public:
  explicit StepCheck(std::vector<StepPart> parts);

  // Calls `compute`, which moves the live parts from the state of the constructor's call by one
  // step, twice; where the bits of the two differ a third time. Afterwards the parts hold what two
  // computations agree on, or the state before the step. Nothing where the first two agree.
  std::optional<StepFault> run(const std::function<void()>& compute);

 private:
  std::vector<at::Tensor> copies() const;
  void put_back();
  bool same(const std::vector<at::Tensor>& other) const;
  std::vector<StepDifference> differences(const std::vector<at::Tensor>& other) const;

  std::vector<StepPart> parts_;
  std::vector<at::Tensor> before_;
};

// The same for the step of the 1-based number `step`: a warning that says what was wrong, which is
// also returned; an Error where no two of three computations agree.
std::optional<std::string> verify_step(int64_t step, std::vector<StepPart> parts,
                                       const std::function<void()>& compute);

}  // namespace refract
