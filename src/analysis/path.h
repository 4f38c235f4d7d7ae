// Loss at many points between models, every point on the same tokens.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "analysis/weights.h"
#include "model/batched_decoder.h"
#include "train/evaluate.h"

namespace refract {

struct PointOptions {
  int64_t context = 0;
  int64_t max_windows = 0;  // whole windows from the start of the stream; 0: all of it
  // "batched": many points in one pass; "prefixes": each distinct prefix of a window once, on a CPU
  // (model/prefix_tree.h); both for models in plain layers only; "single": one after the other;
  // "auto": batched on CUDA, prefixes on a CPU where enough of them repeat and the stream has at
  // most 2^24 tokens, after one point came out the same both ways.
  std::string engine = "auto";
  // Of the batched engine in fp32: "fp32" products; "split": on tensor cores, from operands split
  // in two (ops/many/split.h); "half": in fp16 throughout; "auto": split on CUDA.
  std::string products = "auto";
  // What becomes of buffers (running ranges) between the corners: "interpolate", or "re-estimate"
  // from `calibration`: they start as in a new model and see `calibration_batches` batches of
  // `calibration_batch` windows from its start in training mode, weights untouched.
  std::string buffers = "interpolate";
  std::vector<at::Tensor> fresh_buffers;  // of a new model, in the order of its store
  std::shared_ptr<TokenStream> calibration;
  int64_t calibration_batches = 8, calibration_batch = 32;
};

// Evaluates combinations of corners. A corner itself is evaluated by evaluate() with its own
// buffers, whatever the options, so that it gives what `refract eval` gives.
class PointEvaluator {
 public:
  // `model` is used to compute and its weights change.
  PointEvaluator(Decoder& model, std::vector<Weights> corners, PointOptions options);

  using Coefficients = std::vector<double>;
  // On a GPU: one batch of zeros for these points, of at most as many windows as evaluate() takes
  // together, and one by one at most 16,384 tokens; never more than `max_windows`. How many tokens
  // there will be is not known here. The first products of a process cost tenths of a second, in
  // which libraries start and kernels are loaded; this may run beside reading the tokens.
  void warm_up(const std::vector<Coefficients>& points);

  // One evaluation a point. `done` is called with the number of points that are finished.
  std::vector<Evaluation> evaluate(const TokenStream& stream,
                                   const std::vector<Coefficients>& points,
                                   const std::function<void(int64_t)>& done = {});

  const std::vector<Weights>& corners() const { return corners_; }
  // How points between corners were evaluated so far: "batched" or "prefixes" where those of any
  // stream were, else "single".
  const std::string& engine() const { return used_; }

 private:
  // Evaluates points between corners together.
  using Together = std::function<std::vector<Evaluation>(const std::vector<Coefficients>& points)>;

  void choose_engine();
  Evaluation evaluate_single(const TokenStream& stream, const Coefficients& point,
                             int64_t max_windows);
  // None where points are to be evaluated one by one.
  Together together(const TokenStream& stream, const Coefficients& sample);
  bool agrees(const TokenStream& stream, const at::Tensor& tokens, const Coefficients& point,
              int64_t most_tokens, const std::function<Together(const at::Tensor&)>& engine);
  Together by_prefixes(const at::Tensor& tokens, double worth);
  at::Tensor weights_at(const std::vector<Coefficients>& points) const;
  std::vector<Evaluation> evaluate_trees(const std::vector<PrefixTree>& trees,
                                         const std::vector<Coefficients>& points);
  std::vector<Evaluation> evaluate_batch(const at::Tensor& tokens,
                                         const std::vector<Coefficients>& points);
  int64_t windows_together(int64_t models) const;
  size_t points_together() const;
  Products products() const;
  void re_estimate_buffers();

  Decoder& model_;
  std::vector<Weights> corners_;
  PointOptions options_;
  std::string engine_ = "single", used_ = "single";
};

// Coefficients (alpha, 1 - alpha) of a path from B (alpha 0) to A (alpha 1).
std::vector<PointEvaluator::Coefficients> path_points(const std::vector<double>& alphas);

}  // namespace refract
