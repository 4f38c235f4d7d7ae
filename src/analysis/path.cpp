#include "analysis/path.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "model/batched_decoder.h"
#include "model/layer_plan.h"
#include "model/prefix_tree.h"

namespace refract {
namespace {

// Weights of the points that are evaluated together, and what their activations may take.
constexpr int64_t kWeightBytesCpu = int64_t{2} << 30, kWeightBytesCuda = int64_t{16} << 30;
constexpr int64_t kActivationBytesCpu = int64_t{64} << 20, kActivationBytesCuda = int64_t{3} << 30;
// The first tokens, on which both engines are compared: enough for their kernels to be the ones of
// the whole stream, few beside it.
constexpr int64_t kCheckTokensCpu = 8192, kCheckTokensCuda = 32768;
// On a CPU a tree's activations stay in a core's own cache.
constexpr int64_t kNodesPerTree = 1024;
// Trees pay up to that share of distinct prefixes; streams above that length are neither read as a
// whole nor sorted unasked.
constexpr double kWorthSharing = 0.95;
constexpr int64_t kMostTokensSorted = int64_t{1} << 24;
constexpr int64_t kWarmUpTokens = 16384;  // a batch of evaluate()
// Attention's kernels take the batch as a grid dimension of 16 bits.
constexpr int64_t kMostSequences = 32768;

// Bytes that live at once for a token of one model: the widest layer's input, output and residual.
int64_t bytes_per_token(const ModelPlan& plan) {
  int64_t widest = 0;
  for (const LayerPlan& layer : plan.layers) {
    const int64_t ffn = output_width(layer.up) + layer.down.members[0].in_features;
    widest = std::max({widest, ffn, 2 * output_width(layer.qkv)});
  }
  return 4 * (4 * plan.tokens.width + widest);
}

// The predicted part of a stream, cut as evaluate() cuts it.
struct Cut {
  int64_t windows = 0, rest = 0;  // rest: predicted tokens of the last, shorter window
};

Cut cut_of(const TokenStream& stream, int64_t context, int64_t max_windows) {
  const int64_t predicted = stream.size() - 1;
  Cut cut{predicted / context, predicted % context};
  if (max_windows > 0 && max_windows <= cut.windows) cut = {max_windows, 0};
  return cut;
}

at::Tensor tokens_of(const TokenStream& stream, int64_t count, at::Device device) {
  at::Tensor host = at::empty({count}, at::TensorOptions().dtype(at::kInt));
  stream.read(0, {host.mutable_data_ptr<int32_t>(), static_cast<size_t>(count)});
  return host.to(device);
}

}  // namespace

std::vector<PointEvaluator::Coefficients> path_points(const std::vector<double>& alphas) {
  std::vector<PointEvaluator::Coefficients> points;
  for (double alpha : alphas) points.push_back({alpha, 1 - alpha});
  return points;
}

PointEvaluator::PointEvaluator(Decoder& model, std::vector<Weights> corners, PointOptions options)
    : model_(model), corners_(std::move(corners)), options_(std::move(options)) {
  choose_engine();
}

void PointEvaluator::choose_engine() {
  const std::string reason = why_not_batched(model_), &wanted = options_.engine;
  const bool many = wanted == "batched" || wanted == "prefixes", cuda = model_.device().is_cuda();
  if (many && !reason.empty())
    fail_usage("these models can't be evaluated by the engine '{}': {}", wanted, reason);
  if (wanted == "prefixes" && cuda) fail_usage("the engine 'prefixes' is for the CPU");
  if (wanted == "prefixes" && products() != Products::kPlain)
    fail_usage("the engine 'prefixes' is for products in fp32, not '{}'", options_.products);
  if (many) {
    engine_ = wanted;
  } else if (wanted == "auto" && reason.empty()) {
    engine_ = cuda ? "batched" : products() == Products::kPlain ? "prefixes" : "single";
  }
}

std::vector<Evaluation> PointEvaluator::evaluate(const TokenStream& stream,
                                                 const std::vector<Coefficients>& points,
                                                 const std::function<void(int64_t)>& done) {
  std::vector<Evaluation> results(points.size());
  std::vector<size_t> alone, between;
  int64_t finished = 0;
  const auto report = [&](size_t count) {
    finished += static_cast<int64_t>(count);
    if (done) done(finished);
  };
  for (size_t i = 0; i < points.size(); ++i)
    (engine_ != "single" && corner_of(points[i]) < 0 ? between : alone).push_back(i);
  Together engine;
  if (!between.empty()) {
    engine = together(stream, points[between[between.size() / 2]]);
    if (engine)
      used_ = engine_;
    else
      alone.insert(alone.end(), between.begin(), between.end()), between.clear();
  }
  for (size_t i : alone) {
    results[i] = evaluate_single(stream, points[i], options_.max_windows);
    report(1);
  }
  const size_t most = points_together();
  for (size_t first = 0; first < between.size(); first += most) {
    std::vector<Coefficients> chunk;
    const size_t last = std::min(between.size(), first + most);
    for (size_t i = first; i < last; ++i) chunk.push_back(points[between[i]]);
    const std::vector<Evaluation> part = engine(chunk);
    for (size_t i = first; i < last; ++i) results[between[i]] = part[i - first];
    report(chunk.size());
  }
  return results;
}

size_t PointEvaluator::points_together() const {
  const int64_t budget = model_.device().is_cuda() ? kWeightBytesCuda : kWeightBytesCpu;
  // Weights, beside them their folded copies, and split ones of one and a half times that.
  const int64_t bytes = 4 * corners_[0].parameters.numel() * 4;
  return static_cast<size_t>(std::max<int64_t>(1, budget / bytes));
}

int64_t PointEvaluator::windows_together(int64_t models) const {
  const int64_t activations =
      model_.device().is_cuda() ? kActivationBytesCuda : kActivationBytesCpu;
  const int64_t fit = activations / (models * options_.context * bytes_per_token(model_.plan()));
  return std::max<int64_t>(1, std::min(fit, kMostSequences / models));
}

void PointEvaluator::warm_up(const std::vector<Coefficients>& points) {
  if (!model_.device().is_cuda()) return;
  std::vector<Coefficients> between;
  for (const Coefficients& point : points) {
    if (corner_of(point) < 0 && between.size() < points_together()) between.push_back(point);
  }
  const auto at_most = [this](int64_t windows) {
    return options_.max_windows > 0 ? std::min(windows, options_.max_windows) : windows;
  };
  const int64_t T = options_.context, windows = at_most(std::max<int64_t>(1, kWarmUpTokens / T));
  const std::vector<int32_t> zeros(static_cast<size_t>(windows * T + 1));
  Coefficients first(corners_.size(), 0);
  first[0] = 1;
  evaluate_single(*make_token_stream(zeros), first, windows);
  if (engine_ != "batched" || between.empty()) return;
  const auto models = static_cast<int64_t>(between.size());
  evaluate_batch(at::zeros({at_most(windows_together(models)) * T + 1},
                           at::TensorOptions().dtype(at::kInt).device(model_.device())),
                 between);
}

PointEvaluator::Together PointEvaluator::together(const TokenStream& stream,
                                                  const Coefficients& sample) {
  const bool automatic = options_.engine == "auto";
  const Cut cut = cut_of(stream, options_.context, options_.max_windows);
  const int64_t count = cut.windows * options_.context + cut.rest + 1;
  // Before it is read: a memory-mapped stream may be larger than memory.
  if (engine_ == "prefixes" && automatic && count > kMostTokensSorted) return {};
  const at::Tensor tokens = tokens_of(stream, count, model_.device());
  if (engine_ == "prefixes") {
    const auto any = [this](const at::Tensor& some) { return by_prefixes(some, 1); };
    Together engine = by_prefixes(tokens, automatic ? kWorthSharing : 1);
    if (!engine || (automatic && !agrees(stream, tokens, sample, kCheckTokensCpu, any))) return {};
    return engine;
  }
  const auto batch = [this](const at::Tensor& some) -> Together {
    return [this, some](const auto& points) { return evaluate_batch(some, points); };
  };
  if (automatic && !agrees(stream, tokens, sample, kCheckTokensCuda, batch)) return {};
  return batch(tokens);
}

// Another engine is the faster of two ways to one number; where it can't be had (out of memory) or
// is not that number, the other way is taken from there on, and says so.
bool PointEvaluator::agrees(const TokenStream& stream, const at::Tensor& tokens,
                            const Coefficients& point, int64_t most_tokens,
                            const std::function<Together(const at::Tensor&)>& engine) {
  // Of a mean loss; in 16 bits either way rounds every activation by up to 2^-9.
  const bool wide = model_.arena().compute().scalar_type() == at::kFloat;
  const double tolerance = wide ? 1e-4 : 2e-3;
  const int64_t T = options_.context, windows = std::max<int64_t>(1, most_tokens / T);
  const bool some = windows * T + 1 < tokens.numel();
  const Evaluation single = evaluate_single(stream, point, some ? windows : options_.max_windows);
  std::string reason;
  try {
    const at::Tensor first = some ? tokens.narrow(0, 0, windows * T + 1) : tokens;
    const double loss = engine(first)({point}).front().loss;
    if (std::abs(loss - single.loss) <= tolerance * std::abs(single.loss)) return true;
    if (std::isnan(loss) && std::isnan(single.loss)) return true;
    reason = fmt::format("it gives a loss of {} where one by one gives {}", loss, single.loss);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    reason = text.substr(0, text.find('\n'));
  }
  log_warning("points are evaluated one by one, because the engine '{}' failed: {}", engine_,
              reason);
  engine_ = "single";
  return false;
}

Evaluation PointEvaluator::evaluate_single(const TokenStream& stream, const Coefficients& point,
                                           int64_t max_windows) {
  set_weights(model_, combine(corners_, point));
  if (corner_of(point) < 0 && options_.buffers == "re-estimate") re_estimate_buffers();
  return refract::evaluate(model_, stream, options_.context, max_windows);
}

// None where more than `worth` of the prefixes are distinct.
PointEvaluator::Together PointEvaluator::by_prefixes(const at::Tensor& tokens, double worth) {
  const std::span<const int32_t> stream(tokens.const_data_ptr<int32_t>(),
                                        static_cast<size_t>(tokens.numel()));
  auto trees = std::make_shared<const std::vector<PrefixTree>>(
      prefix_trees(stream, options_.context, kNodesPerTree));
  if (distinct_share(*trees) > worth) return {};
  return [this, trees](const auto& points) { return evaluate_trees(*trees, points); };
}

// Every core with trees and points of its own. Sums are over trees in their order.
std::vector<Evaluation> PointEvaluator::evaluate_trees(const std::vector<PrefixTree>& trees,
                                                       const std::vector<Coefficients>& points) {
  const at::NoGradGuard no_grad;
  std::vector<BatchedDecoder> decoders;
  for (const Coefficients& point : points) decoders.emplace_back(model_, weights_at({point}));
  const size_t per_point = trees.size();
  std::vector<Evaluation> parts(points.size() * per_point), results(points.size());
  const auto run = [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (auto task = static_cast<size_t>(begin); task < static_cast<size_t>(end); ++task) {
      const PrefixTree& tree = trees[task % per_point];
      const BatchedDecoder::Loss loss = decoders[task / per_point].loss(tree);
      parts[task] = {loss.sum.item<double>(), static_cast<double>(loss.correct.item<int64_t>()),
                     tree.counts.sum().item<int64_t>()};
    }
  };
  at::parallel_for(0, static_cast<int64_t>(parts.size()), 1, run);
  for (size_t task = 0; task < parts.size(); ++task) {
    Evaluation& sum = results[task / per_point];
    sum.loss += parts[task].loss;
    sum.accuracy += parts[task].accuracy;
    sum.tokens += parts[task].tokens;
  }
  for (Evaluation& result : results) {
    result.loss /= static_cast<double>(result.tokens);
    result.accuracy /= static_cast<double>(result.tokens);
  }
  return results;
}

// [points, parameters]. Buffers have no part here: a model that has any is evaluated one by one.
at::Tensor PointEvaluator::weights_at(const std::vector<Coefficients>& points) const {
  const at::Tensor& corner = corners_[0].parameters;
  at::Tensor weights =
      at::empty({static_cast<int64_t>(points.size()), corner.numel()}, corner.options());
  for (size_t a = 0; a < points.size(); ++a)
    weights.select(0, static_cast<int64_t>(a)).copy_(combine(corners_, points[a]).parameters);
  return weights;
}

std::vector<Evaluation> PointEvaluator::evaluate_batch(const at::Tensor& tokens,
                                                       const std::vector<Coefficients>& points) {
  const at::NoGradGuard no_grad;
  const auto models = static_cast<int64_t>(points.size());
  const int64_t T = options_.context, predicted = tokens.numel() - 1, windows = predicted / T;
  const auto options = corners_[0].parameters.options();
  const BatchedDecoder batched(model_, weights_at(points), products());
  at::Tensor loss = at::zeros({models}, options.dtype(at::kDouble));
  at::Tensor correct = at::zeros({models}, options.dtype(at::kLong));
  const auto add = [&](int64_t begin, int64_t sequences, int64_t length) {
    const int64_t count = sequences * length;
    const BatchedDecoder::Loss part =
        batched.loss(tokens.narrow(0, begin, count).view({sequences, length}),
                     tokens.narrow(0, begin + 1, count).view({sequences, length}));
    loss.add_(part.sum);
    correct.add_(part.correct);
  };
  const int64_t together = windows_together(models);
  for (int64_t first = 0; first < windows; first += together)
    add(first * T, std::min(together, windows - first), T);
  if (predicted % T > 0) add(windows * T, 1, predicted % T);

  loss = loss.cpu();
  correct = correct.cpu();
  std::vector<Evaluation> results;
  for (int64_t a = 0; a < models; ++a) {
    const auto count = static_cast<double>(predicted);
    results.push_back({loss[a].item<double>() / count,
                       static_cast<double>(correct[a].item<int64_t>()) / count, predicted});
  }
  return results;
}

Products PointEvaluator::products() const {
  if (options_.products == "half") return Products::kHalf;
  const bool split =
      options_.products == "split" || (options_.products == "auto" && model_.device().is_cuda());
  return split ? Products::kSplit : Products::kPlain;
}

// Running ranges move in training mode only, so they see the calibration tokens in that mode.
void PointEvaluator::re_estimate_buffers() {
  if (options_.fresh_buffers.empty()) return;
  const at::NoGradGuard no_grad;
  size_t i = 0;
  for (BufferStore::Buffer& buffer : model_.buffers().all())
    buffer.tensor.copy_(options_.fresh_buffers.at(i++));
  const int64_t T = options_.context, windows = (options_.calibration->size() - 1) / T;
  const int64_t size = std::min(options_.calibration_batch, windows);
  for (int64_t b = 0; b < options_.calibration_batches && (b + 1) * size <= windows; ++b) {
    at::Tensor host = at::empty({size, T + 1}, at::TensorOptions().dtype(at::kInt));
    for (int64_t w = 0; w < size; ++w) {
      options_.calibration->read(
          (b * size + w) * T,
          {host.mutable_data_ptr<int32_t>() + w * (T + 1), static_cast<size_t>(T + 1)});
    }
    const at::Tensor batch = host.to(model_.device());
    ForwardContext context;
    context.training = true;
    context.clock = at::zeros({2}, batch.options().dtype(at::kLong));
    context.clock[0] = b;
    model_.loss(context, batch.narrow(1, 0, T).contiguous(), batch.narrow(1, 1, T).contiguous());
  }
}

}  // namespace refract
