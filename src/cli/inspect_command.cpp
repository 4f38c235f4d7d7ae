#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/toml.h"
#include "report/energy/energy_record.h"
#include "report/table.h"
#include "runs/folded_parameters.h"
#include "runs/inspect.h"
#include "runs/plan.h"
#include "train/recipe.h"
#include "train/run_config.h"

namespace refract {
namespace {

using nlohmann::json;

class InspectCommand : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override {
    return "Shapes, parameters, FLOPs, memory and energy of a recipe or a model, without running "
           "it";
  }
  std::string example() const override { return "refract inspect recipes/lmc/mingpt.toml"; }
  void declare(CommandLine& line) override {
    line.positional("source", source_,
                    "a recipe (.toml), a run, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("-n,--processes", processes_, "memory of each of so many that train it together");
    line.flag("--json", json_, "print one JSON object");
    line.option("--energy", energy_,
                "a TOML file with constants of energy, in place of the program's own");
    line.flag("--toml", toml_, "print the whole recipe, with its bases and overrides, and no more");
  }
  int run() override;

 private:
  int print_recipe() const;
  std::string source_, energy_;
  std::vector<std::string> overrides_;
  int64_t processes_ = 1;
  bool json_ = false, toml_ = false;
};

int InspectCommand::print_recipe() const {
  if (json_) fail_usage("--toml and --json exclude each other");
  if (!source_.ends_with(".toml"))
    fail_usage("'{}' is not a recipe (.toml); --toml prints a recipe", source_);
  const json tree = read_recipe(source_, overrides_);
  make_run_config(tree, source_);  // fails for a wrong setting
  fmt::print("{}", to_toml(tree));
  return 0;
}

json forward_json(const Flops& forward) {
  return {{"attention_projections", forward.attention_projections},
          {"attention_products", forward.attention_products},
          {"ffn", forward.ffn},
          {"head", forward.head},
          {"total", forward.total()}};
}

json transforms_json(const TransformedModel& model) {
  json rows = json::array();
  if (model.rules.empty()) return rows;
  for (const PlanRow& row : model.plan) {
    rows.push_back({{"match", row.match},
                    {"kind", row.kind},
                    {"modules", row.modules},
                    {"dense_parameters", row.dense_parameters},
                    {"parameters", row.parameters}});
  }
  return rows;
}

json inspection_json(const Inspection& found) {
  const ParameterArena& arena = found.model.decoder->arena();
  const RunCost& cost = found.cost;
  return {{"parameters", arena.count()},
          {"trainable_parameters", arena.trainable_count()},
          {"parameters_without_embeddings", found.matrices.without_embeddings()},
          {"ffn_parameters", found.matrices.ffn},
          {"forward_flops_per_token", forward_json(found.forward)},
          {"training_flops_per_token", found.training.total()},
          {"guide_flops_per_token", found.guides.total()},
          {"steps", static_cast<int64_t>(cost.run.steps)},
          {"guided_steps", static_cast<int64_t>(cost.run.guided_steps)},
          {"tokens", cost.run.steps * cost.run.tokens_per_step},
          {"training_flops", cost.flops.total()},
          {"training_flops_by_part",
           {{"attention", cost.flops.attention_projections + cost.flops.attention_products},
            {"ffn", cost.flops.ffn},
            {"head", cost.flops.head}}},
          {"processes", found.processes},
          {"state_bytes", found.state_bytes},
          {"layer_input_bytes", found.layer_input_bytes},
          {"premerge_bytes", found.premerge_bytes},
          {"energy", energy_json(found.energy, found.config.data.context)},
          {"transforms", transforms_json(found.model)}};
}

void print(const Inspection& found) {
  const ParameterArena& arena = found.model.decoder->arena();
  Table shapes({{"parameter"}, {"shape"}, {"layers", Align::kRight}, {"count", Align::kRight}});
  for (const FoldedParameter& p : fold_layers(arena.parameters())) {
    shapes.add_row({p.name, fmt::format("[{}]", fmt::join(p.shape, ", ")),
                    p.copies > 1 ? format_integer(p.copies) : "", format_integer(p.count)});
  }
  shapes.add_rule();
  shapes.add_row({"all", "", "", format_integer(arena.count())});
  if (arena.trainable_count() < arena.count())
    shapes.add_row({"trained", "", "", format_integer(arena.trainable_count())});
  fmt::print("{}\n", shapes.str());
  Table parts({{"forward FLOPs per token"}, {"", Align::kRight}});
  const json forward = forward_json(found.forward);  // in the order of the JSON object
  for (const auto& [name, value] : forward.items())
    parts.add_row({name, format_number(value.get<double>())});
  fmt::print("{}\n", parts.str());
  fmt::print("training        {} FLOPs per token\n", format_number(found.training.total()));
  if (found.cost.run.steps > 0)
    fmt::print("the run         {}\n", describe(found.cost, found.config));
  else if (found.config.train.minutes > 0)
    fmt::print("the run         as many steps as fit into {} minutes\n",
               format_number(found.config.train.minutes));
  fmt::print(
      "state           {} for weights, gradients and moments ({}){}; activations come on top\n",
      format_bytes(found.state_bytes), found.config.train.precision,
      found.processes > 1 ? fmt::format(" in each of {} processes", found.processes) : "");
  if (found.layer_input_bytes > 0) {
    fmt::print(
        "layer inputs    {} are kept (train.recompute); one layer's activations come on top\n",
        format_bytes(found.layer_input_bytes));
  }
  if (found.premerge_bytes > 0) {
    fmt::print("pre-merged      {} for merged matrices beside the factors, in inference\n",
               format_bytes(found.premerge_bytes));
  }
  if (!found.model.rules.empty()) fmt::print("\n{}", plan_table(found.model));
  fmt::print("\nenergy of inference, per token at {} tokens of context\n{}",
             found.config.data.context, energy_table(found.energy).str());
}

int InspectCommand::run() {
  if (toml_) return print_recipe();
  if (processes_ < 1) fail_usage("--processes takes a number from 1 on, not {}", processes_);
  const Inspection found = inspect_source(source_, overrides_, processes_, energy_);
  if (json_) {
    fmt::print("{}\n", inspection_json(found).dump());
  } else {
    print(found);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }

}  // namespace refract
