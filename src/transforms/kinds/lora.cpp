// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, section 4.1) of a frozen layer f of any
// kind: beside it, y = f(x) + s (drop(x) A^T) B^T, or merged into its weight, W + s B A. In a
// medium these are two machines: merged, the adapter is inside the simulated product and within the
// weight's range; beside, it is a digital product added to the medium's. The layers are in
// transforms/lora/.
#include <string>
#include <vector>

#include "core/error.h"
#include "transforms/inner_kind.h"
#include "transforms/kind.h"
#include "transforms/lora/lora_projections.h"

namespace refract {
namespace {

class Lora : public Kind {
 public:
  void describe(Fields& fields) override {
    fields.add("r", settings_.r, "rank of the adapter", {.min = 1});
    fields.add("alpha", settings_.alpha, "the adapter's product is scaled by alpha / r",
               {.min = 0, .open_min = true});
    fields.add(
        "dropout", settings_.dropout,
        "dropout on the adapter's input, in training; layers that share their input share it",
        {.min = 0, .max = 0.99});
    fields.add("adapter", adapter_,
               "beside: a product of its own is added; merged: the layer multiplies by W + s B A",
               {"beside", "merged"});
    base_.describe(fields, "the kind of the frozen layer: a name, or a table with its parameters");
  }

  void check(const std::string& where) const override {
    base_.check(where);
    if (!merged()) return;
    if (base_.get() && !merging()) {
      fail_usage(
          "{}: adapter = \"merged\" multiplies by W + s B A, but over = \"{}\" can't have adapters "
          "merged into it; set adapter = \"beside\"",
          where, base_.get()->name());
    }
    if (base_.get() && !merging()->merges()) {
      fail_usage(
          "{}: adapter = \"merged\" needs one range per tensor below it; leave out q_*_per, or set "
          "adapter = \"beside\"",
          where);
    }
    if (settings_.dropout > 0) {
      fail_usage(
          "{}: dropout = {} has no place in adapter = \"merged\", whose adapters have no input of "
          "their own; set dropout = 0 or adapter = \"beside\"",
          where, settings_.dropout);
    }
  }

  bool transforms_linear() const override { return true; }
  void check_shape(const LinearSpec& spec) const override {
    if (const Kind* below = base_.get()) below->check_shape(spec);
  }

  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    LinearSpec plain = spec;
    plain.bias = false;
    std::vector<TransformedLayer> members;
    auto group = projections({build.arena, build.buffers, members}, {{plain}});
    return lone_member(std::move(group), members);
  }

  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    if (!merged()) return make_lora_beside(build, spec, settings_, base_.get(), name());
    if (base_.get()) return merging()->merged_projections(build, spec, settings_, name());
    return make_lora_merged(build, spec, settings_, name());
  }

  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    const double adapter =
        merged() ? 0 : static_cast<double>(settings_.r * (product.inputs + product.outputs));
    ProductShape base = product;
    base.multiplications -= adapter;
    Energy energy = base_.energy(base, constants);
    energy.beside += digital_energy(adapter, constants);
    return energy;
  }

 private:
  bool merged() const { return adapter_ == "merged"; }
  const MergesAdapters* merging() const { return dynamic_cast<const MergesAdapters*>(base_.get()); }

  LoraSettings settings_;
  std::string adapter_ = "beside";
  InnerKind base_;  // dense where none is named
};

}  // namespace

REFRACT_KIND(lora, Lora, "low-rank adapters beside a frozen layer of any kind, or in its weight");

}  // namespace refract
