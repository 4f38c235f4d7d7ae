// The numbers of a model as one point, and combinations of such points.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/decoder.h"

namespace refract {

struct Weights {
  at::Tensor parameters;            // the arena's values, flat, padding included (zeros)
  std::vector<at::Tensor> buffers;  // in the order of the model's store
};

// Copies out of and into a model. set_weights() fails where the shapes differ.
Weights weights_of(Decoder& model);
void set_weights(Decoder& model, const Weights& weights);

// sum_i coefficients[i] * corners[i]. A coefficient of 1 beside zeros gives that corner bit for bit
// (0 times a weight that is not finite would not). Integer buffers are those of the first corner
// with a coefficient above 0.
Weights combine(std::span<const Weights> corners, std::span<const double> coefficients);

// The index of the corner that such coefficients name, or -1.
int64_t corner_of(std::span<const double> coefficients);

// How two points lie to each other, over all parameters, summed in double.
struct Geometry {
  double norm_a = 0, norm_b = 0;
  double distance = 0;  // |A - B|
  double dot = 0;
  double cosine() const { return dot / (norm_a * norm_b); }
};
Geometry geometry_of(const Weights& a, const Weights& b);

// `n` equally spaced numbers from 0 to 1, both exact. n >= 2.
std::vector<double> equally_spaced(int64_t n);

}  // namespace refract
