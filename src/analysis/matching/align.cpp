#include "analysis/matching/align.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <numeric>

#include "analysis/matching/activations.h"
#include "analysis/matching/linear_assignment.h"
#include "core/error.h"

namespace refract {
namespace {

Permutation identity(int64_t n) {
  Permutation p(n);
  std::iota(p.begin(), p.end(), 0);
  return p;
}

int64_t moved(const Permutation& p) {
  int64_t count = 0;
  for (size_t i = 0; i < p.size(); ++i) count += p[i] != static_cast<int64_t>(i);
  return count;
}

// The best permutation for a score matrix [n, n] on the CPU, or the identity where that is as good.
Permutation best_permutation(const at::Tensor& score) {
  const at::Tensor s = score.to(at::kDouble).contiguous();
  const int64_t n = s.size(0);
  const double* data = s.const_data_ptr<double>();
  Permutation p = maximal_assignment({data, static_cast<size_t>(n * n)}, n);
  double best = 0, stay = 0, scale = 0;
  for (int64_t i = 0; i < n; ++i) {
    best += data[i * n + p[i]];
    stay += data[i * n + i];
    scale += std::abs(data[i * n + p[i]]);
  }
  return best - stay > 1e-12 * scale ? p : identity(n);
}

// Scores of units, heads and channels: what matching i of A with j of B would add.
at::Tensor row_scores(const NamedWeights& a, const NamedWeights& b, const std::string& name) {
  const at::Tensor &x = a.at(name), &y = b.at(name);
  return x.dim() == 1 ? at::outer(x, y) : at::matmul(x, y.t());
}

at::Tensor unit_scores(const NamedWeights& a, const NamedWeights& b, int64_t layer) {
  const std::string down = in_layer(layer, "mlp.down_proj.weight");
  at::Tensor score = at::matmul(a.at(down).t(), b.at(down));
  for (const char* name :
       {"mlp.up_proj.weight", "mlp.up_proj.bias", "mlp.gate_proj.weight", "mlp.gate_proj.bias"}) {
    if (a.contains(in_layer(layer, name)))
      score = score.add(row_scores(a, b, in_layer(layer, name)));
  }
  return score;
}

// Rows in blocks of head_dim, flattened: [heads, head_dim * columns].
at::Tensor head_rows(const at::Tensor& rows, int64_t head_dim) {
  return rows.reshape({rows.size(0) / head_dim, -1});
}

at::Tensor block_scores(const NamedWeights& a, const NamedWeights& b, const std::string& module,
                        int64_t head_dim) {
  at::Tensor score;
  for (const char* kind : {".weight", ".bias"}) {
    if (!a.contains(module + kind)) continue;
    const at::Tensor part = at::matmul(head_rows(a.at(module + kind), head_dim),
                                       head_rows(b.at(module + kind), head_dim).t());
    score = score.defined() ? score.add(part) : part;
  }
  return score;
}

// Between query heads [H, H] and between key/value groups [K, K].
struct HeadScores {
  at::Tensor queries, groups;
};

HeadScores head_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                       int64_t layer) {
  const auto columns = [&](const NamedWeights& w) {  // of o_proj, by head
    const at::Tensor output = w.at(in_layer(layer, "self_attn.o_proj.weight"));
    return head_rows(output.t().contiguous(), config.head_dim);
  };
  HeadScores scores;
  scores.queries = block_scores(a, b, in_layer(layer, "self_attn.q_proj"), config.head_dim)
                       .add(at::matmul(columns(a), columns(b).t()));
  scores.groups =
      block_scores(a, b, in_layer(layer, "self_attn.k_proj"), config.head_dim)
          .add(block_scores(a, b, in_layer(layer, "self_attn.v_proj"), config.head_dim));
  return scores;
}

// Groups and the query heads inside them together: a pair of groups scores what its best inner
// order adds.
HeadPermutation best_heads(const HeadScores& scores, const ModelConfig& config) {
  const int64_t groups = config.num_key_value_heads, size = config.num_attention_heads / groups;
  at::Tensor total = scores.groups.clone();
  std::vector<std::vector<Permutation>> inner(groups, std::vector<Permutation>(groups));
  for (int64_t i = 0; i < groups; ++i) {
    for (int64_t j = 0; j < groups; ++j) {
      const at::Tensor block = scores.queries.narrow(0, i * size, size).narrow(1, j * size, size);
      inner[i][j] = best_permutation(block);
      for (int64_t h = 0; h < size; ++h) total[i][j] += block[h][inner[i][j][h]];
    }
  }
  HeadPermutation heads;
  heads.groups = best_permutation(total);
  for (int64_t i = 0; i < groups; ++i) heads.inner.push_back(inner[i][heads.groups[i]]);
  return heads;
}

int64_t moved(const HeadPermutation& heads) {
  int64_t count = 0;
  for (size_t i = 0; i < heads.groups.size(); ++i) {
    const bool same = heads.groups[i] == static_cast<int64_t>(i);
    count += same ? moved(heads.inner[i]) : static_cast<int64_t>(heads.inner[i].size());
  }
  return count;
}

// M with <M, P> = sum <A, P applied to B> over what touches the residual stream. `settled` leaves
// out what also depends on the order of units and heads. Folded scales are all 1: no map changes
// their part, which has to be left out for a map that is no permutation.
at::Tensor residual_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                           bool settled, bool folded) {
  at::Tensor score = at::zeros({config.hidden_size, config.hidden_size}, at::kDouble);
  const ResidualUsers users = residual_users(a, config);
  for (const std::string& name : users.readers) {
    const bool other_side_ordered = name.find(".layers.") == std::string::npos;
    if (settled && !other_side_ordered) continue;
    score.add_(at::matmul(a.at(name).t(), b.at(name)));
  }
  for (const std::string& name : users.writers) {
    if (settled && a.at(name).dim() == 2) continue;
    score.add_(row_scores(a, b, name));
  }
  if (folded) return score;
  for (const std::string& name : users.scales) score.add_(row_scores(a, b, name));
  return score;
}

// The orthogonal Q with the largest <M, Q> (Schoenemann, "A generalized solution of the orthogonal
// Procrustes problem", 1966).
at::Tensor procrustes(const at::Tensor& score) {
  const auto [u, s, vh] = at::linalg_svd(score, /*full_matrices=*/false);
  return at::matmul(u, vh);
}

// The permutation that Q is to within rounding, or nothing.
std::optional<Permutation> as_permutation(const at::Tensor& q) {
  constexpr double kRounding = 1e-4;
  const at::Tensor largest = std::get<1>(q.max(1)).contiguous();
  const int64_t* data = largest.const_data_ptr<int64_t>();
  Permutation p(data, data + largest.numel());
  const at::Tensor exact = at::zeros_like(q).scatter_(1, largest.unsqueeze(1), 1.0);
  if (q.sub(exact).abs().max().item<double>() > kRounding) return std::nullopt;
  return p;
}

double distance(const NamedWeights& a, const NamedWeights& b) {
  double sum = 0;
  for (const auto& [name, value] : a) sum += value.sub(b.at(name)).square().sum().item<double>();
  return std::sqrt(sum);
}

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

  AlignReport run() {
    report_.distance_before = distance(a_, b_);
    if (options_.by == "activations") statistics_ = gather();
    start_residual();
    if (options_.by == "activations") {
      match_layers();
      report_.sweeps = 1;
    } else {
      descend();
    }
    if (orthogonal_) {
      unfold_scales(b_, config_, original_a_);
      a_ = original_a_;
    }
    report_.residual = orthogonal_                   ? "orthogonal"
                       : options_.residual == "none" ? "none"
                                                     : "permutation";
    report_.distance_after = distance(a_, b_);
    write_weights(b_, model_b_);
    return report_;
  }

 private:
  std::map<std::string, CrossStatistics> gather() {
    if (!options_.stream) throw std::logic_error("activation matching needs tokens");
    return cross_statistics(model_a_, model_b_, *options_.stream, options_.context,
                            options_.windows);
  }

  bool may_rotate() const { return config_.rms() && !config_.tie_word_embeddings; }

  // The first guess, from what no order of units or heads has a part in; it decides between the
  // two kinds of maps.
  void start_residual() {
    if (options_.residual == "none") return;
    if (options_.residual == "orthogonal" && !may_rotate()) {
      fail_usage(
          "an orthogonal map of the residual stream needs RMSNorm and a head that is not tied to "
          "the "
          "embedding; use --residual permutation");
    }
    const bool wanted = options_.residual == "orthogonal" || options_.residual == "auto";
    if (wanted && may_rotate()) {
      NamedWeights a = a_, b = b_;
      fold_scales(a, config_);
      fold_scales(b, config_);
      const at::Tensor q = procrustes(rotation_scores(a, b));
      if (!as_permutation(q)) {
        a_ = std::move(a);
        b_ = std::move(b);
        rotate_residual(b_, config_, q);
        orthogonal_ = true;
        return;
      }
    }
    apply_channels(best_permutation(
        statistics_.empty() ? residual_scores(a_, b_, config_, /*settled=*/true, /*folded=*/false)
                            : stream_correlation()));
  }

  // In folded weights.
  at::Tensor rotation_scores(const NamedWeights& a, const NamedWeights& b) const {
    if (statistics_.empty())
      return residual_scores(a, b, config_, /*settled=*/true, /*folded=*/true);
    // Products of the normalized stream itself: the scales are in the recorded inputs.
    at::Tensor score = at::zeros({config_.hidden_size, config_.hidden_size}, at::kDouble);
    for (const auto& [name, statistics] : statistics_) {
      if (!reads_stream(name)) continue;
      const std::string norm = norm_of(name);
      score.add_(statistics.products.div(original_a_.at(norm).unsqueeze(1)).div(b_.at(norm)));
    }
    return score;
  }

  static bool reads_stream(const std::string& name) {
    return !name.ends_with("o_proj") && !name.ends_with("down_proj");
  }
  static std::string norm_of(const std::string& name) {
    const size_t block = name.find(".self_attn."), mlp = name.find(".mlp.");
    return block != std::string::npos ? name.substr(0, block) + ".input_layernorm.weight"
                                      : name.substr(0, mlp) + ".post_attention_layernorm.weight";
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

  void descend() {
    double before = -distance(a_, b_);
    for (; report_.sweeps < options_.sweeps;) {
      ++report_.sweeps;
      int64_t changes = 0;
      for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
        changes += apply_heads(layer, best_heads(head_scores(a_, b_, config_, layer), config_));
        changes += apply_units(layer, best_permutation(unit_scores(a_, b_, layer)));
      }
      if (options_.residual != "none") changes += improve_residual();
      const double now = -distance(a_, b_);
      if (changes == 0 || now - before <= 1e-9 * std::abs(before)) return;
      before = now;
    }
  }

  int64_t improve_residual() {
    const at::Tensor score = residual_scores(a_, b_, config_, /*settled=*/false, orthogonal_);
    if (!orthogonal_) return apply_channels(best_permutation(score));
    rotate_residual(b_, config_, procrustes(score));
    return config_.hidden_size;
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

  const ModelConfig& config_;
  const AlignOptions& options_;
  Decoder &model_a_, &model_b_;
  NamedWeights a_, b_, original_a_;
  std::map<std::string, CrossStatistics> statistics_;
  bool orthogonal_ = false;
  AlignReport report_;
};

}  // namespace

AlignReport align(Decoder& a, Decoder& b, const AlignOptions& options) {
  if (!a.transformed().empty() || !b.transformed().empty() || !a.buffers().all().empty())
    fail_usage("only dense models can be aligned; export them merged first (refract export)");
  return Aligner(a, b, options).run();
}

}  // namespace refract
