// Watching what a medium quantizes: how `refract calibrate` learns its ranges and `refract
// sensitivity` its culprits.
//
// While an observer is set, a layer that has roles (operands and results that it quantizes) shows
// each of them and goes on with what the observer returns; otherwise it computes densely. So an
// observer that returns what it saw lets every layer see the model's own activations. A kind from a
// plug-in takes part by doing the same.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

namespace refract {

struct Observation {
  std::string module;  // "model.layers.3.mlp.down_proj"
  // "x", "w" and "out" of a linear layer; "q", "k", "scores", "probabilities", "v" and "out" of an
  // attention.
  std::string role;
  at::Tensor values;    // [..., n]: what is quantized; with `range` [rows, 2] it is [rows, n]
  bool by_row = false;  // whether each row has a range of its own
  // The buffer that the range stands in, [2] or [rows, 2] of (lo, hi), (+inf, -inf) while unset.
  // Undefined where the medium takes its range from each vector, or has a fixed one.
  at::Tensor range;
  int64_t levels = 0;
  double lut_min = 0;  // the floor of a second operand; 0: none
  // What the medium makes of values, with the range that it has now.
  std::function<at::Tensor(const at::Tensor&)> quantize;
};

class MediumObserver {
 public:
  virtual ~MediumObserver() = default;
  // What the layer goes on with in place of the values, of their shape.
  virtual at::Tensor see(const Observation& observation) = 0;
  // Channels of a layer's input whose largest magnitude the layer keeps, float [n] and negative
  // while unset: `values` [..., n] are what it sees. What such a layer hands to its medium depends
  // on them, so that ranges are learned in a second pass.
  virtual void see_channels(const std::string& module, const at::Tensor& values,
                            const at::Tensor& largest) = 0;
};

// The observer that is set; null: none. Forward passes with one run on one thread.
MediumObserver* medium_observer();

// Sets an observer for as long as it lives.
class ObserverScope {
 public:
  explicit ObserverScope(MediumObserver& observer);
  ~ObserverScope();
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  MediumObserver* before_;
};

}  // namespace refract
