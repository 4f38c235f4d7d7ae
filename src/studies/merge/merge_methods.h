// Ways to make one tensor of the same tensor of several models.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace refract {

struct MergeSettings {
  // linear, slerp, task_arithmetic, ties, dare, dare_ties.
  std::string method = "linear";
  std::vector<double> weights;  // one for each model; of linear they are divided by their sum
  double t = 0.5;               // slerp: 0 is the first model, 1 the second
  double lambda = 1;            // factor of the sum of task vectors
  double density = 0.5;         // ties, dare: the part of each task vector that is kept
  int64_t seed = 1;             // dare: of what is dropped

  // Whether it adds differences from a base, its task vectors.
  bool uses_base() const { return method != "linear" && method != "slerp"; }
};

// The methods, in the words of MergeSettings.
const std::vector<std::string>& merge_methods();

// `models` and `base` are equal in shape, of any floating type; computed and returned in fp32.
//   linear: the mean by weights ("model soups", Wortsman et al., 2022).
//   slerp: along the arc between two, each tensor as one vector; parallel ones on the line.
//   task_arithmetic: base + lambda sum of w_i d_i with d_i = model_i - base (Ilharco et al., 2023).
//   ties: of each d_i the largest in magnitude, of these the ones whose sign agrees with that of
//   the
//     weighted sum, their mean by weights (Yadav et al., 2023).
//   dare: each element of d_i dropped with probability 1 - density, what stays divided by density
//     (Yu et al., 2024); then as task_arithmetic. dare_ties: then signs and mean as in ties.
// `name` and the seed decide what dare drops.
at::Tensor merge_tensors(const std::string& name, const std::vector<at::Tensor>& models,
                         const at::Tensor& base, const MergeSettings& settings);

}  // namespace refract
