#include "runs/inspect/inspect_output.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/progress.h"
#include "report/energy/energy_record.h"
#include "report/table.h"
#include "runs/inspect/folded_parameters.h"
#include "runs/plan.h"

namespace refract {
namespace {

using nlohmann::json;

json forward_json(const Flops& forward) {
  return {{"attention_projections", forward.attention_projections},
          {"attention_products", forward.attention_products},
          {"ffn", forward.ffn},
          {"head", forward.head},
          {"total", forward.total()}};
}

json memory_json(const MemoryPlan& memory) {
  json parts = {{"weights", memory.weights},
                {"gradients", memory.gradients},
                {"moments", memory.moments},
                {"gradient_sums", memory.sums},
                {"exchange_buffers", memory.exchange},
                {"library_workspaces", memory.libraries},
                {"activations_kept", nullptr},
                {"activations", nullptr},
                {"peak", nullptr}};
  if (memory.call) {
    parts["activations_kept"] = memory.call->kept;
    parts["activations"] = memory.call->most;
    parts["peak"] = *memory.peak();
  }
  return parts;
}

Table memory_table(const Inspection& found) {
  const MemoryPlan& memory = found.memory;
  const std::string each =
      found.processes > 1 ? fmt::format(" of each of {} processes", found.processes) : "";
  Table table({{"memory of a step" + each}, {"", Align::kRight}});
  const auto add = [&](const std::string& part, double bytes) {
    if (bytes > 0) table.add_row({part, format_bytes(bytes)});
  };
  add(fmt::format("weights ({})", found.config.train.precision), memory.weights);
  add("gradients", memory.gradients);
  add("moments", memory.moments);
  add("sums of gradients", memory.sums);
  add("exchange buffers", memory.exchange);
  if (!memory.call) {
    table.add_row({"activations", "not known for these rules"});
    table.add_row({"all but activations", format_bytes(memory.state())});
    return table;
  }
  add(fmt::format("activations at the peak, train.recompute = \"{}\"",
                  found.config.train.recompute),
      memory.call->most);
  add("  of these kept for the backward pass", memory.call->kept);
  add("workspaces of libraries", memory.libraries);
  table.add_rule();
  table.add_row({"peak", format_bytes(*memory.peak())});
  return table;
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

}  // namespace

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
          {"state_bytes", found.memory.state()},
          {"memory", memory_json(found.memory)},
          {"premerge_bytes", found.premerge_bytes},
          {"energy", energy_json(found.energy, found.config.data.context)},
          {"transforms", transforms_json(found.model)}};
}

std::string inspection_text(const Inspection& found) {
  std::string text;
  const auto line = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
  };
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
  line("{}\n", shapes.str());
  Table parts({{"forward FLOPs per token"}, {"", Align::kRight}});
  const json forward = forward_json(found.forward);  // in the order of the JSON object
  for (const auto& [name, value] : forward.items())
    parts.add_row({name, format_number(value.get<double>())});
  line("{}\n", parts.str());
  line("training        {} FLOPs per token\n", format_number(found.training.total()));
  if (found.cost.run.steps > 0)
    line("the run         {}\n", describe(found.cost, found.config));
  else if (found.config.train.minutes > 0)
    line("the run         as many steps as fit into {} minutes\n",
         format_number(found.config.train.minutes));
  line("\n{}\n", memory_table(found).str());
  if (found.premerge_bytes > 0) {
    line("pre-merged      {} for merged matrices beside the factors, in inference\n",
         format_bytes(found.premerge_bytes));
  }
  if (!found.model.rules.empty()) line("\n{}", plan_table(found.model));
  line("\nenergy of inference, per token at {} tokens of context\n{}", found.config.data.context,
       energy_table(found.energy).str());
  return text;
}

}  // namespace refract
