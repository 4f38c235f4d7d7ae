// A model whose modules compute in their medium or densely by the same weights, as a switch says
// between two forward passes: what `refract sensitivity` measures with.
//
// What lies before the first layer that differs needs no second computation: the output of each
// branch (attention and feed-forward) is kept once and handed on.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/slots.h"
#include "transforms/transform_factory.h"

namespace refract {

// The switches of one model, and the branches' outputs that are kept. For forward passes without
// gradients and without a cache, one after the other.
class MediumSwitches {
 public:
  // Modules in the medium; all others compute densely.
  void set(std::set<std::string> in_medium) { in_medium_ = std::move(in_medium); }
  bool on(const std::string& module) const { return in_medium_.contains(module); }

  // What the next forward passes are: plain; one whose branches are kept under `name`; or one that
  // takes the branches of the layers before `first` from those kept under `name`. `batch` tells the
  // batches of an evaluation apart.
  void plain() { mode_ = Mode::kPlain; }
  void keep(const std::string& name, size_t batch);
  void replay(const std::string& name, size_t batch, int64_t first);

  bool replays(int64_t layer) const { return mode_ == Mode::kReplay && layer < first_; }
  bool keeps() const { return mode_ == Mode::kKeep; }
  at::Tensor& kept(const std::string& module);

 private:
  enum class Mode { kPlain, kKeep, kReplay };
  Mode mode_ = Mode::kPlain;
  int64_t first_ = 0;
  std::string prefix_;
  std::set<std::string> in_medium_;
  std::map<std::string, at::Tensor> kept_;
};

// Builds what `inner` builds, behind the switches, which must outlive the model.
class SwitchedFactory : public LayerFactory {
 public:
  SwitchedFactory(const TransformFactory& inner, MediumSwitches& switches)
      : inner_(inner), switches_(switches) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override;
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override;

 private:
  const TransformFactory& inner_;
  MediumSwitches& switches_;
};

}  // namespace refract
