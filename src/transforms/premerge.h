// Pre-merged layers (Wei et al., arXiv 2406.16450, section 3.2): no non-linearity stands between
// the factors of a structured layer, so in inference the merged dense matrix can be kept beside
// them. A call of few tokens, bound by launches and latency, multiplies by the matrix; a call of
// many by the factors. Which number is few is measured per shape and device (refract bench
// premerge).
#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/slots.h"

namespace refract {

// What the threshold of a group of layers depends on, beside the machine.
struct PremergeShape {
  std::string kinds;                          // of the members: "low_rank", "low_rank+dense"
  int64_t in_features = 0, out_features = 0;  // of all members together
  int64_t parameters = 0;                     // weights as they are, so that ranks are told apart
  bool operator==(const PremergeShape&) const = default;
};

// A measured threshold: calls of up to `tokens` tokens are faster by the merged matrix.
struct PremergeThreshold {
  PremergeShape shape;
  std::string device, precision;  // "NVIDIA H100 80GB HBM3", "bf16"
  int64_t tokens = 0;
};

// premerge.toml of a run.
class PremergeTable {
 public:
  // Empty where the file does not exist; fails for one that is not such a table.
  static PremergeTable read(const std::filesystem::path& path);
  std::string to_toml() const;
  void set(const PremergeThreshold& threshold);  // replaces that of the same shape and machine
  std::optional<int64_t> find(const PremergeShape& shape, const std::string& device,
                              const std::string& precision) const;
  const std::vector<PremergeThreshold>& all() const { return thresholds_; }

 private:
  std::vector<PremergeThreshold> thresholds_;
};

// A threshold above any number of tokens: the merged matrix always.
inline constexpr int64_t kPremergeAlways = std::numeric_limits<int64_t>::max();

struct PremergeSettings {
  // auto: the measured threshold, else `default_tokens`; on: the merged matrix whatever the number
  // of tokens; off: never.
  std::string mode = "auto";
  PremergeTable table;
  std::string device, precision;
  int64_t default_tokens = 0;
};

// The threshold where nothing was measured. On a GPU a call of few tokens costs launches: one for
// the merged form, two or more for a structured one. On a CPU it costs the reading of the weights,
// of which a structured layer has fewer.
int64_t default_premerge_tokens(bool cuda);

// A group of layers with its merged matrix beside it.
class PremergedProjections : public Projections {
 public:
  // `tokens`: the threshold. `build.transformed` holds the group's members from `first` on.
  PremergedProjections(Build build, const ProjectionSpec& spec, size_t first,
                       std::unique_ptr<Projections> structured, int64_t tokens);
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;

  // The product by the merged matrix, whatever the number of tokens. Fails where there is none.
  at::Tensor forward_merged(const at::Tensor& x);
  Projections& structured() { return *structured_; }
  // Whether every member has a merged weight. The arena must be allocated; on the meta device no
  // memory is needed for the answer.
  bool mergeable() const;
  int64_t tokens() const { return tokens_; }
  void set_tokens(int64_t tokens) { tokens_ = tokens; }
  // Bytes of the merged matrix in compute dtype, 0 where it is not kept.
  int64_t bytes() const;

 private:
  at::Tensor merge() const;  // [out, in] in master dtype; undefined where a member has none
  void refresh();

  ProjectionSpec spec_;
  Build build_;
  size_t first_;
  std::unique_ptr<Projections> structured_;
  int64_t tokens_;
  std::vector<Parameter*> biases_;
  at::Tensor weight_, bias_;  // compute dtype
  uint32_t version_ = 0;      // of the master values that weight_ was made from
  bool has_merged_ = true;
};

// A wrapped group of a model, owned by it.
struct PremergeGroup {
  ProjectionSpec spec;
  PremergeShape shape;
  PremergedProjections* layer;
};

// Wraps another factory: groups with a transformed member get the merged form, where the settings
// call for it.
class PremergeFactory : public LayerFactory {
 public:
  PremergeFactory(const LayerFactory& inner, PremergeSettings settings)
      : inner_(inner), settings_(std::move(settings)) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override {
    return inner_.attention(build, spec);
  }
  // Of the model that was built.
  const std::vector<PremergeGroup>& groups() const { return groups_; }

 private:
  const LayerFactory& inner_;
  PremergeSettings settings_;
  mutable std::vector<PremergeGroup>
      groups_;  // a factory's functions are const; this only watches them
};

}  // namespace refract
