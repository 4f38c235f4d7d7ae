#include "analysis/matching/align.h"

#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "analysis/matching/activations.h"
#include "analysis/matching/folding.h"
#include "analysis/matching/head_maps.h"
#include "analysis/matching/orthogonal.h"
#include "analysis/matching/scores.h"
#include "core/error.h"
#include "model/dense.h"

namespace refract {
namespace {

// What a sweep has to bring, as a share of the distance. Rotations never quite come to rest.
constexpr double kWorthASweep = 1e-9, kWorthARotatedSweep = 1e-5;

class Aligner {
 public:
  Aligner(Decoder& a, Decoder& b, const AlignOptions& options)
      : config_(a.config()),
        options_(options),
        model_a_(a),
        model_b_(b),
        a_(named_weights(a)),
        b_(named_weights(b)),
        original_a_(a_) {}

  Matched run() {
    report_.heads = "whole";
    report_.distance_before = distance(a_, b_);
    if (options_.by == "activations") statistics_ = gather();
    start_residual();
    if (options_.by == "activations") {
      match_layers();
      report_.sweeps = 1;
    } else {
      descend(/*rotated=*/false);
    }
    if (turns_heads()) turn_heads();
    if (learns()) learn();
    return finish();
  }

 private:
  bool learns() const { return options_.learn.steps > 0; }
  bool has_own_head() const { return !model_a_.config().tie_word_embeddings; }
  // What "auto" takes, where it does not cost the model its form.
  bool rotates_freely() const { return learns() || (config_.rms() && has_own_head()); }

  std::map<std::string, CrossStatistics> gather() {
    if (!options_.stream) throw std::logic_error("activation matching needs tokens");
    return cross_statistics(model_a_, model_b_, *options_.stream, options_.context,
                            options_.windows);
  }

  // The first guess, from what no order of units or heads has a part in; it decides between the
  // two kinds of maps.
  void start_residual() {
    if (options_.residual == "none") return;
    const bool always = options_.residual == "orthogonal";
    if (always || (options_.residual == "auto" && rotates_freely())) {
      NamedWeights a = a_, b = b_;
      fold_norms(a, config_);
      fold_norms(b, config_);
      const at::Tensor q = best_rotation(rotation_scores(a, b));
      if (always || learns() || !as_permutation(q)) {
        a_ = std::move(a);
        b_ = std::move(b);
        config_ = folded_config(config_);
        rotate_residual(b_, config_, q);
        orthogonal_ = true;
        return;
      }
    }
    apply_channels(best_permutation(
        statistics_.empty() ? residual_scores(a_, b_, config_, /*settled=*/true, /*folded=*/false)
                            : stream_correlation()));
  }

  at::Tensor best_rotation(const at::Tensor& score) const {
    return config_.rms() ? procrustes(score) : procrustes_keeping_mean(score);
  }

  // In folded weights.
  at::Tensor rotation_scores(const NamedWeights& a, const NamedWeights& b) const {
    if (statistics_.empty())
      return residual_scores(a, b, config_, /*settled=*/true, /*folded=*/true);
    // Products of the normalized stream itself: scales and biases are in the recorded inputs.
    at::Tensor score = at::zeros({config_.hidden_size, config_.hidden_size}, at::kDouble);
    for (const auto& [name, statistics] : statistics_) {
      if (!reads_stream(name)) continue;
      const std::string scale = norm_of(name) + ".weight", bias = norm_of(name) + ".bias";
      at::Tensor products = statistics.products;
      if (original_a_.contains(bias))
        products = statistics.products_less(original_a_.at(bias), b_.at(bias));
      score.add_(products.div(original_a_.at(scale).unsqueeze(1)).div(b_.at(scale)));
    }
    return score;
  }

  static bool reads_stream(const std::string& name) {
    return !name.ends_with("o_proj") && !name.ends_with("down_proj");
  }
  static std::string norm_of(const std::string& name) {
    const size_t block = name.find(".self_attn."), mlp = name.find(".mlp.");
    return block != std::string::npos ? name.substr(0, block) + ".input_layernorm"
                                      : name.substr(0, mlp) + ".post_attention_layernorm";
  }

  at::Tensor stream_correlation() const {
    at::Tensor score = at::zeros({config_.hidden_size, config_.hidden_size}, at::kDouble);
    for (const auto& [name, statistics] : statistics_) {
      if (reads_stream(name)) score.add_(statistics.correlation());
    }
    return score;
  }

  // One pass over the layers, by activations.
  void match_layers() {
    const int64_t H = config_.num_attention_heads, K = config_.num_key_value_heads,
                  D = config_.head_dim;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      HeadScores scores;
      scores.queries = statistics_.at(in_layer(layer, "self_attn.o_proj"))
                           .correlation()
                           .view({H, D, H, D})
                           .diagonal(0, 1, 3)
                           .sum(-1);
      scores.groups =
          at::zeros({K, K}, at::kDouble);  // what they add shows in their heads' outputs
      apply_heads(layer, best_heads(scores, config_));
      apply_units(layer,
                  best_permutation(statistics_.at(in_layer(layer, "mlp.down_proj")).correlation()));
    }
  }

  void descend(bool rotated) {
    double before = -distance(a_, b_);
    for (; report_.sweeps < options_.sweeps;) {
      ++report_.sweeps;
      int64_t changes = 0;
      for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
        changes +=
            rotated ? match_rotated_heads(layer)
                    : apply_heads(layer, best_heads(head_scores(a_, b_, config_, layer), config_));
        changes += apply_units(layer, best_permutation(unit_scores(a_, b_, layer)));
      }
      if (options_.residual != "none") changes += improve_residual();
      const double now = -distance(a_, b_);
      const double worth = rotated || orthogonal_ ? kWorthARotatedSweep : kWorthASweep;
      if (changes == 0 || now - before <= worth * std::abs(before)) return;
      before = now;
    }
  }

  int64_t improve_residual() {
    const at::Tensor score = residual_scores(a_, b_, config_, /*settled=*/false, orthogonal_);
    if (!orthogonal_) return apply_channels(best_permutation(score));
    rotate_residual(b_, config_, best_rotation(score));
    return config_.hidden_size;
  }

  // "auto" leaves heads that have been restored as they are, so that a permuted copy comes back bit
  // for bit.
  bool turns_heads() const {
    if (options_.heads == "whole") return false;
    if (options_.heads == "orthogonal") return true;
    return rotates_freely() && distance(a_, b_) > 1e-4 * report_.distance_before;
  }

  void turn_heads() {
    report_.heads = "orthogonal";
    if (options_.by == "weights") return descend(/*rotated=*/true);
    // Their order was found from what they hand on, which does not show how keys lie.
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
      map_heads(b_, config_, layer, best_rotations(a_, b_, config_, layer));
  }

  int64_t match_rotated_heads(int64_t layer) {
    const int64_t changes = apply_heads(layer, best_rotated_heads(a_, b_, config_, layer));
    map_heads(b_, config_, layer, best_rotations(a_, b_, config_, layer));
    return changes + config_.num_attention_heads;
  }

  void learn() {
    if (!options_.stream) throw std::logic_error("learned matching needs tokens");
    std::unique_ptr<Decoder> point;
    if (options_.point) {
      point = options_.point(config_);
    } else {
      point = std::make_unique<Decoder>(config_, DenseFactory());
      point->allocate(at::kCPU, at::kFloat);
    }
    MapClasses classes;
    classes.stream = orthogonal_;
    classes.heads = options_.heads != "whole";
    report_.learned =
        learn_matching(*point, a_, b_, classes, *options_.stream, options_.context, options_.learn);
    if (classes.heads) report_.heads = "invertible";
  }

  Matched finish() {
    const bool learned_both = learns() && options_.learn.both;
    Matched matched;
    matched.config = config_;
    if (orthogonal_ && has_own_head()) {
      unfold_norms(b_, config_, original_a_);
      if (learned_both) unfold_norms(a_, config_, original_a_);
    }
    matched.moved_a = learned_both || (orthogonal_ && !has_own_head());
    if (!matched.moved_a) a_ = original_a_;
    report_.residual = orthogonal_                   ? "orthogonal"
                       : options_.residual == "none" ? "none"
                                                     : "permutation";
    report_.distance_after = distance(a_, b_);
    matched.report = report_;
    matched.a = std::move(a_);
    matched.b = std::move(b_);
    return matched;
  }

  int64_t apply_units(int64_t layer, const Permutation& units) {
    permute_units(b_, layer, units);
    return moved(units);
  }
  int64_t apply_heads(int64_t layer, const HeadPermutation& heads) {
    permute_heads(b_, config_, layer, heads);
    return moved(heads);
  }
  int64_t apply_channels(const Permutation& channels) {
    permute_residual(b_, config_, channels);
    return moved(channels);
  }

  ModelConfig config_;  // of a_ and b_
  const AlignOptions& options_;
  Decoder &model_a_, &model_b_;
  NamedWeights a_, b_, original_a_;
  std::map<std::string, CrossStatistics> statistics_;
  bool orthogonal_ = false;
  AlignReport report_;
};

}  // namespace

bool moves_first(const ModelConfig& config, const AlignOptions& options) {
  const bool learns = options.learn.steps > 0;
  const bool orthogonal =
      options.residual == "orthogonal" || (options.residual == "auto" && learns);
  return (orthogonal && config.tie_word_embeddings) || (learns && options.learn.both);
}

Matched match_models(Decoder& a, Decoder& b, const AlignOptions& options) {
  if (!a.transformed().empty() || !b.transformed().empty() || !a.buffers().all().empty())
    fail_usage("only dense models can be aligned; export them merged first (refract export)");
  return Aligner(a, b, options).run();
}

AlignReport align(Decoder& a, Decoder& b, const AlignOptions& options) {
  const Matched matched = match_models(a, b, options);
  if (matched.moved_a) {
    fail_usage(
        "this alignment changes the first model's weights too: an orthogonal map of the residual "
        "stream needs a head that is not tied to the embedding; use refract align, which writes "
        "both, or a permutation");
  }
  write_weights(matched.b, b);
  return matched.report;
}

}  // namespace refract
