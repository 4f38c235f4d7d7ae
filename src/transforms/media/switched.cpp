#include "transforms/media/switched.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "model/dense.h"
#include "model/layer_plan.h"
#include "transforms/media/observer.h"

namespace refract {
namespace {

// Whether a group's output is a branch's: attention's or the feed-forward's last layer.
bool ends_branch(const ProjectionSpec& spec) {
  const std::string& name = spec.members.front().name;
  return name.ends_with(".o_proj") || name.ends_with(".down_proj");
}

class SwitchedProjections : public Projections {
 public:
  SwitchedProjections(Build build, ProjectionSpec spec, size_t first,
                      std::unique_ptr<Projections> medium, MediumSwitches& switches)
      : build_(build), spec_(std::move(spec)), medium_(std::move(medium)), switches_(switches) {
    for (const LinearSpec& member : spec_.members) {
      const auto entry = std::find_if(
          build_.transformed.begin() + static_cast<int64_t>(first), build_.transformed.end(),
          [&](const TransformedLayer& layer) { return layer.spec.name == member.name; });
      layers_.push_back(entry == build_.transformed.end() ? nullptr : entry->layer);
    }
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const int64_t layer = spec_.members.front().layer;
    const bool branch = ends_branch(spec_);
    if (switches_.replays(layer)) {
      if (branch) return switches_.kept(spec_.members.front().name);
      std::vector<int64_t> sizes = x.sizes().vec();
      sizes.back() =
          spec_.activation == Activation::kSwiglu ? output_width(spec_) / 2 : output_width(spec_);
      return at::zeros(sizes, x.options());  // nobody looks at it
    }
    const at::Tensor y = compute(context, x);
    if (branch && switches_.keeps()) switches_.kept(spec_.members.front().name) = y;
    return y;
  }

 private:
  bool in_medium(size_t member) const {
    return layers_[member] && switches_.on(spec_.members[member].name);
  }

  at::Tensor compute(const ForwardContext& context, const at::Tensor& x) {
    size_t count = 0;
    for (size_t i = 0; i < layers_.size(); ++i) count += in_medium(i) ? 1 : 0;
    const auto changed = static_cast<size_t>(std::count_if(
        layers_.begin(), layers_.end(), [](const LinearLayer* layer) { return layer != nullptr; }));
    if (count == changed || medium_observer()) return medium_->forward(context, x);
    std::vector<at::Tensor> outputs;
    for (size_t i = 0; i < layers_.size(); ++i) {
      outputs.push_back(in_medium(i) ? layers_[i]->forward(context, x)
                                     : at::linear(x, dense_weight(i)));
    }
    const at::Tensor y = outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
    return apply_epilogue(y, bias(x), spec_.activation);
  }

  // What the member multiplies by outside its medium. A view of its master values where they are
  // of the type that is computed in.
  at::Tensor dense_weight(size_t member) {
    const std::string& name = spec_.members[member].name;
    if (!layers_[member]) return build_.arena.leaf(build_.arena.find(name + ".weight"));
    at::Tensor merged = layers_[member]->merged();
    if (!merged.defined())
      fail("'{}' has no dense weight, so that what its medium costs can't be measured", name);
    if (merged.scalar_type() == build_.arena.compute().scalar_type()) return merged;
    weights_.resize(layers_.size());
    if (!weights_[member].defined())
      weights_[member] = merged.to(build_.arena.compute().scalar_type());
    return weights_[member];
  }

  at::Tensor bias(const at::Tensor& x) const {
    std::vector<at::Tensor> parts;
    bool any = false;
    for (const LinearSpec& member : spec_.members) {
      any = any || member.bias;
      parts.push_back(member.bias ? build_.arena.leaf(build_.arena.find(member.name + ".bias"))
                                  : at::zeros({member.out_features}, x.options()));
    }
    return any ? at::cat(parts) : at::Tensor();
  }

  Build build_;
  ProjectionSpec spec_;
  std::unique_ptr<Projections> medium_;
  MediumSwitches& switches_;
  std::vector<LinearLayer*> layers_;  // null: no rule matches it
  std::vector<at::Tensor> weights_;
};

class SwitchedAttention : public AttentionCore {
 public:
  SwitchedAttention(AttentionSpec spec, std::unique_ptr<AttentionCore> medium,
                    MediumSwitches& switches)
      : spec_(std::move(spec)), dense_(spec_), medium_(std::move(medium)), switches_(switches) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override {
    if (switches_.replays(spec_.layer)) return nothing(q_BTHD);
    return in_medium() ? medium_->forward(context, q_BTHD, k_BTKD, v_BTKD)
                       : dense_.forward(context, q_BTHD, k_BTKD, v_BTKD);
  }
  at::Tensor forward_joint(const ForwardContext& context, const AttentionSpec& spec,
                           const at::Tensor& qkv) override {
    if (switches_.replays(spec_.layer)) return nothing(qkv);
    return in_medium() ? medium_->forward_joint(context, spec, qkv)
                       : dense_.forward_joint(context, spec, qkv);
  }

  // The dense attention does.
  bool follows_window() const override { return medium_->follows_window(); }

 private:
  bool in_medium() const { return switches_.on(spec_.name) || medium_observer(); }
  at::Tensor nothing(const at::Tensor& like) const {
    return at::zeros({like.size(0), like.size(1), spec_.num_heads * spec_.head_dim},
                     like.options());
  }

  AttentionSpec spec_;
  SdpaAttention dense_;
  std::unique_ptr<AttentionCore> medium_;
  MediumSwitches& switches_;
};

}  // namespace

void MediumSwitches::keep(const std::string& name, size_t batch) {
  mode_ = Mode::kKeep;
  prefix_ = fmt::format("{}/{}/", name, batch);
}

void MediumSwitches::replay(const std::string& name, size_t batch, int64_t first) {
  mode_ = Mode::kReplay;
  prefix_ = fmt::format("{}/{}/", name, batch);
  first_ = first;
}

at::Tensor& MediumSwitches::kept(const std::string& module) { return kept_[prefix_ + module]; }

std::unique_ptr<Projections> SwitchedFactory::projections(Build build,
                                                          const ProjectionSpec& spec) const {
  const size_t first = build.transformed.size();
  auto medium = inner_.projections(build, spec);
  return std::make_unique<SwitchedProjections>(build, spec, first, std::move(medium), switches_);
}

std::unique_ptr<AttentionCore> SwitchedFactory::attention(Build build,
                                                          const AttentionSpec& spec) const {
  return std::make_unique<SwitchedAttention>(spec, inner_.attention(build, spec), switches_);
}

}  // namespace refract
