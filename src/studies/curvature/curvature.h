// The study of `refract curvature`: how the loss bends around a model, along a path, and in a plane
// of random directions.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "analysis/curvature/lanczos.h"
#include "analysis/curvature/trace.h"

namespace refract {

// Texts take the words that the options of the command take; errors name those options.
struct CurvatureStudy {
  std::string model, along;  // as load_model() takes them; along: empty, or the path's other end
  std::vector<std::string> overrides, data;  // data: another corpus; empty: the split of the run
  std::string split = "train", of = "both", precision = "auto";
  int64_t tokens = 4096;
  LanczosOptions lanczos = {};
  int64_t probes = 10;  // of the trace
  int64_t density = 0;  // Lanczos steps a probe for the spectral density; 0: none
  int64_t points = 5;   // on the path
  int64_t plane = 0;    // points on each side of a plane; 0: none
  double extent = 1;    // of the plane, in directions as long as the model's filters
  double step = 0;      // over the length of the weights; 0: by precision
  int64_t seed = 1;     // of probes, starting vectors and directions
  std::string out = "curvature";
};

struct OperatorCurvature {
  std::string name;  // "hessian" or "gauss_newton"
  Spectrum spectrum;
  TraceEstimate trace;
  Quadrature density;  // of all probes, weights sum to 1; empty: not asked for
  // Relative change of a product where the step is doubled: with the eigenvector of the largest
  // eigenvalue, and with a random vector, whose step is ten times as large.
  double error_largest = 0, error_random = 0;
};

struct CurvaturePoint {
  double alpha = 0;  // weight of the model
  double loss = 0;
  Eigenvalue largest;
  TraceEstimate trace;
  double along = 0;  // d^T H d / d^T d with d the path's direction
};

struct CurvatureResult {
  std::string folder, other, corpus;
  std::vector<std::string> kinds;  // of the rules, where there are any
  std::string precision;           // "float64" or "fp32"
  double step = 0;
  int64_t tokens = 0, context = 0, parameters = 0;  // parameters: trainable
  double loss = 0, gradient_length = 0;
  std::vector<OperatorCurvature> operators;
  std::vector<CurvaturePoint> path;  // from B (alpha 0) to the model (alpha 1)
  double path_length = 0;
  std::vector<double> plane_axis;               // the same in x and y
  std::vector<std::vector<double>> plane_loss;  // by y, then by x
  double seconds = 0;
};

// Measures, and writes curvature.json and report.html into study.out. Fails (usage), before
// anything is computed, for options that are wrong and for an `out` that can't be written.
CurvatureResult measure_curvature(const CurvatureStudy& study);

}  // namespace refract
