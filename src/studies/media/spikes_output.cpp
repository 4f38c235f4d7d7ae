#include "studies/media/spikes_output.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "report/energy/energy_record.h"
#include "report/json_number.h"
#include "report/page/page.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_shown(const SpikesResult& result, int64_t step) {
  return (step & (step - 1)) == 0 || step == result.within || step == result.steps.back().step;
}

std::string csv(const SpikesResult& result) {
  std::string text = "step,loss,accuracy,spikes_per_token,joules_per_token\n";
  for (const SpikesStep& step : result.steps) {
    text += fmt::format("{},{},{},{},{}\n", step.step, step.loss, step.accuracy, step.spikes,
                        step.joules);
  }
  return text;
}

PlotSpec curve(const SpikesResult& result, const char* title, const char* label,
               double SpikesStep::*value) {
  PlotSpec plot;
  plot.title = title;
  plot.x_label = "time step";
  plot.y_label = label;
  plot.log_x = true;
  plot.half_width = true;
  Series series;
  series.name = "spiking";
  for (const SpikesStep& step : result.steps) {
    series.x.push_back(static_cast<double>(step.step));
    series.y.push_back(step.*value);
  }
  plot.series.push_back(std::move(series));
  return plot;
}

}  // namespace

Table spikes_table(const SpikesResult& result) {
  Table table({{"time step", Align::kRight},
               {"loss", Align::kRight},
               {"/ quantized", Align::kRight},
               {"accuracy", Align::kRight},
               {"spikes per token", Align::kRight},
               {"J per token", Align::kRight}});
  for (const SpikesStep& step : result.steps) {
    if (!is_shown(result, step.step)) continue;
    table.add_row({format_integer(step.step), format_fixed(step.loss, 4),
                   format_fixed(step.loss / result.loss, 3), format_percent(step.accuracy),
                   format_number(step.spikes, 5), format_joules(step.joules)});
  }
  return table;
}

Table spikes_by_type(const SpikesResult& result) {
  Table table({{"operand"},
               {"values per token", Align::kRight},
               {"spikes per token", Align::kRight},
               {"spikes per value", Align::kRight}});
  for (const SpikesOfType& type : result.types) {
    table.add_row({type.type, format_number(type.values, 6), format_number(type.spikes, 6),
                   format_fixed(type.spikes / type.values, 2)});
  }
  return table;
}

std::string spikes_summary(const SpikesResult& result) {
  const SpikesStep& last = result.steps.back();
  std::string text =
      fmt::format("quantized   loss {:.4f} nats per token ({} tokens), accuracy {}\n", result.loss,
                  result.tokens, format_percent(result.accuracy));
  text += result.within > 0
              ? fmt::format("spiking     within 1% of it from time step {} on\n", result.within)
              : fmt::format("spiking     not within 1% of it after {} time steps\n", last.step);
  text += result.settled
              ? fmt::format("            no neuron fires after step {}: loss {:.4f}\n", last.step,
                            last.loss)
              : fmt::format("            neurons still fire in step {}; give more with --steps\n",
                            last.step);
  text += fmt::format("energy      {} per token in spikes, {} quantized, {} in 8-bit arithmetic\n",
                      format_joules(last.joules), format_joules(result.quantized_joules),
                      format_joules(result.digital_joules));
  return text;
}

json spikes_json(const SpikesResult& result) {
  json steps = json::array(), types = json::array();
  for (const SpikesStep& step : result.steps) {
    steps.push_back({{"step", step.step},
                     {"loss", json_number(step.loss)},
                     {"accuracy", step.accuracy},
                     {"spikes_per_token", step.spikes},
                     {"joules_per_token", step.joules}});
  }
  for (const SpikesOfType& type : result.types) {
    types.push_back({{"operand", type.type},
                     {"values_per_token", type.values},
                     {"spikes_per_token", type.spikes}});
  }
  return {{"quantized", {{"loss", json_number(result.loss)}, {"accuracy", result.accuracy}}},
          {"tokens", result.tokens},
          {"steps_to_one_percent", result.within > 0 ? json(result.within) : json(nullptr)},
          {"settled", result.settled},
          {"quantized_joules_per_token", result.quantized_joules},
          {"digital_joules_per_token", result.digital_joules},
          {"steps", std::move(steps)},
          {"operands", std::move(types)}};
}

void write_spikes(const SpikesResult& result, const std::string& out) {
  const fs::path folder = out;
  write_file_atomically(folder / "spikes.json", spikes_json(result).dump(1) + "\n");
  write_file_atomically(folder / "spikes.csv", csv(result));
  Page page(
      "A spiking model over time",
      fmt::format("quantized loss {:.4f} nats per token, {} tokens", result.loss, result.tokens));
  page.preformatted(spikes_summary(result));
  PlotSpec loss = curve(result, "Loss over time steps", "loss (nats)", &SpikesStep::loss);
  loss.levels.push_back({result.loss, "quantized"});
  page.plot(loss);
  page.plot(curve(result, "Accuracy over time steps", "accuracy", &SpikesStep::accuracy));
  page.plot(curve(result, "Spikes since the first step", "spikes per token", &SpikesStep::spikes));
  page.plot(curve(result, "Energy since the first step", "J per token", &SpikesStep::joules));
  page.table(spikes_table(result));
  page.heading("Operands");
  page.table(spikes_by_type(result));
  page.write(folder / "report.html");
}

}  // namespace refract
