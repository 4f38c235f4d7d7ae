#include "runs/run_cost.h"

#include <fmt/format.h>

#include "analysis/model_flops.h"
#include "core/progress.h"
#include "formats/hf_config.h"
#include "report/table.h"
#include "runs/resume/run_teacher.h"
#include "train/self_guided.h"

namespace refract {

RunCost cost_of_run(const RunConfig& config, const Decoder& model, int64_t fresh_steps) {
  RunCost cost;
  if (fresh_steps == 0) return cost;
  const SelfGuidedPlan plan(config, fresh_steps);
  cost.run = {static_cast<double>(plan.total_steps()), static_cast<double>(plan.count_guided()),
              static_cast<double>(config.train.batch * config.data.context)};
  cost.flops = training_flops(shape_of(model, config.data.context), cost.run);
  if (config.distill.on()) {  // the teacher's forward pass
    const ModelConfig teacher = read_model_config(teacher_folder(config));
    cost.flops = cost.flops + forward_flops_per_token(shape_of(teacher, config.data.context)) *
                                  (cost.run.steps * cost.run.tokens_per_step);
  }
  return cost;
}

std::string describe(const RunCost& cost, const RunConfig& config) {
  const Flops& f = cost.flops;
  const double all = f.total();
  std::string text =
      fmt::format("{} steps of {} x {} tokens: {} tokens, {} FLOPs",
                  static_cast<int64_t>(cost.run.steps), config.train.batch, config.data.context,
                  format_count(cost.run.steps * cost.run.tokens_per_step), format_number(all));
  text += fmt::format(" (attention {}, feed-forward {}, head {})",
                      format_percent((f.attention_projections + f.attention_products) / all),
                      format_percent(f.ffn / all), format_percent(f.head / all));
  if (cost.run.guided_steps > 0)
    text += fmt::format("; {} steps guided", static_cast<int64_t>(cost.run.guided_steps));
  return text;
}

}  // namespace refract
