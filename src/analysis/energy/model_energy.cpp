#include "analysis/energy/model_energy.h"

#include <map>
#include <nlohmann/json.hpp>

#include "analysis/flops.h"
#include "model/layer_plan.h"
#include "transforms/kind.h"

namespace refract {
namespace {

using nlohmann::json;

// "conditioned over optical": the kinds of a rule's table, the outer one first.
std::string medium_name(const json& table) {
  if (table.is_string()) return table.get<std::string>();
  if (!table.is_object() || !table.contains("kind")) return "";
  std::string name = table["kind"].get<std::string>();
  if (!table.contains("over")) return name;
  const std::string below = medium_name(table["over"]);
  return below.empty() ? name : name + " over " + below;
}

class Counter {
 public:
  Counter(const Decoder& decoder, const Rules& rules, int64_t context, const EnergyConstants& c)
      : rules_(rules), context_(context), constants_(c) {
    for (const TransformedLayer& entry : decoder.transformed())
      multiplications_[entry.spec.name] = entry.layer->multiplications();
  }

  void add(const LinearSpec& spec) {
    ProductShape product{spec.in_features, spec.out_features};
    const auto known = multiplications_.find(spec.name);
    const bool counted = known != multiplications_.end() && known->second > 0;
    product.multiplications = counted ? static_cast<double>(known->second) : product.dense();
    ModuleEnergy module = of(spec.name, spec.layer);
    add_product(module, product);
    all.push_back(std::move(module));
  }

  void add(const AttentionSpec& spec) {
    ModuleEnergy module = of(spec.name, spec.layer);
    const auto keys = static_cast<int64_t>(mean_keys(context_, spec.window));
    for (const bool scores : {true, false}) {
      ProductShape product;
      product.inputs = scores ? spec.head_dim : keys;
      product.outputs = scores ? keys : spec.head_dim;
      product.times = static_cast<double>(spec.num_heads);
      product.multiplications = product.dense();
      product.head_dim = spec.head_dim;
      product.kv_heads = spec.num_kv_heads;
      add_product(module, product);
    }
    all.push_back(std::move(module));
  }

  void add_head(const TablePlan& head) {
    ModuleEnergy module = of("lm_head", -1);
    ProductShape product{head.width, head.rows};
    product.multiplications = product.dense();
    add_product(module, product);
    all.push_back(std::move(module));
  }

  std::vector<ModuleEnergy> all;

 private:
  const Rule* rule_of(const std::string& module) const {
    const int rule = rules_.find(module);
    return rule < 0 ? nullptr : &rules_.all()[static_cast<size_t>(rule)];
  }

  ModuleEnergy of(const std::string& name, int64_t layer) const {
    ModuleEnergy module{name, layer, "digital"};
    const Rule* rule = layer < 0 ? nullptr : rule_of(name);
    if (rule && rule->make) module.medium = medium_name(json::parse(rule->table_json));
    return module;
  }

  void add_product(ModuleEnergy& module, const ProductShape& product) const {
    const Rule* rule = module.layer < 0 ? nullptr : rule_of(module.module);
    const Energy energy = rule && rule->make
                              ? rule->make->energy(product, constants_)
                              : Energy{digital_energy(product.multiplications, constants_), 0};
    module.multiplications += product.multiplications;
    module.energy = module.energy + energy;
    module.digital += digital_energy(product.dense(), constants_);
  }

  const Rules& rules_;
  int64_t context_;
  const EnergyConstants& constants_;
  std::map<std::string, int64_t> multiplications_;
};

}  // namespace

std::vector<ModuleEnergy> energy_per_token(const Decoder& decoder, const Rules& rules,
                                           int64_t context, const EnergyConstants& constants) {
  Counter counter(decoder, rules, context, constants);
  for (const LayerPlan& layer : decoder.plan().layers) {
    for (const ProjectionSpec* group : projections_of(layer)) {
      for (const LinearSpec& member : group->members) counter.add(member);
      if (group == &layer.qkv) counter.add(layer.attention);
    }
  }
  counter.add_head(head_of(decoder.plan()));
  return std::move(counter.all);
}

EnergyTotal total_of(const std::vector<ModuleEnergy>& modules) {
  EnergyTotal total;
  for (const ModuleEnergy& module : modules) {
    total.energy = total.energy + module.energy;
    total.digital += module.digital;
  }
  return total;
}

}  // namespace refract
