#include "runs/plan.h"

#include <algorithm>

#include "core/error.h"
#include "report/table.h"
#include "train/repair/train_only.h"

namespace refract {
namespace {

// The decoder would refuse it as well, in the first step.
void check_isolated(const TransformedModel& model, const std::string& where) {
  for (const PlanRow& row : model.plan) {
    if (row.rule < 0 || row.kind == "none") continue;
    for (const std::string& module : row.modules) {
      if (!module.ends_with(".self_attn")) continue;
      fail_usage(
          "{}: data.documents = \"isolated\": the attention '{}' is of the kind \"{}\", which "
          "can't "
          "keep documents apart; leave the attention out of the rules, or join the documents",
          where, module, row.kind);
    }
  }
}

}  // namespace

TransformedModel plan_model(RunConfig& config, const std::string& where,
                            const PremergeSettings* premerge) {
  TransformedModel model = build_model(config.model, config.transform, where,
                                       config.self_guided.mode != "none", premerge);
  config.transform = model.rules.to_json();
  if (config.data.documents == "isolated") check_isolated(model, where);
  // Until the corpus is open the token need not be known; a model is only counted or timed then.
  if (config.data.documents == "isolated" && config.data.document_token >= 0) {
    if (config.data.document_token >= config.model.vocab_size) {
      fail_usage("{}: data.document_token = {} is beyond the model's {} tokens", where,
                 config.data.document_token, config.model.vocab_size);
    }
    model.decoder->isolate_documents(config.data.document_token);
  }
  if (!premerge) train_only(*model.decoder, config.only, where);  // inference trains nothing
  return model;
}

std::string plan_table(const TransformedModel& model) {
  if (model.rules.empty()) return "";
  Table table({{"rule"},
               {"kind"},
               {"modules", Align::kRight},
               {"dense", Align::kRight},
               {"parameters", Align::kRight},
               {"", Align::kRight}});
  for (const PlanRow& row : model.plan) {
    const double share = static_cast<double>(row.parameters) /
                         static_cast<double>(std::max<int64_t>(1, row.dense_parameters));
    table.add_row({row.rule < 0 ? "(no rule)" : row.match, row.kind,
                   format_integer(static_cast<int64_t>(row.modules.size())),
                   format_integer(row.dense_parameters), format_integer(row.parameters),
                   row.dense_parameters > 0 ? format_percent(share) : ""});
  }
  return table.str();
}

}  // namespace refract
