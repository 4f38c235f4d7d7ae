#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "cli/commands.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/toml.h"
#include "data/tokenize.h"
#include "formats/model_path.h"
#include "report/table.h"
#include "runs/session.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

class InspectCommand : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override {
    return "Shapes, parameters, FLOPs and memory of a recipe or a model, without running it";
  }
  std::string example() const override { return "refract inspect recipes/lmc/mingpt.toml"; }
  void declare(CommandLine& line) override {
    line.positional("source", source_,
                    "a recipe (.toml), a run, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.flag("--json", json_, "print one JSON object");
    line.flag("--toml", toml_, "print the whole recipe, with its bases and overrides, and no more");
  }
  int run() override;

 private:
  int print_recipe() const;
  void read();
  nlohmann::json figures(const Decoder& model) const;
  double premerge_bytes() const;
  void print(const Decoder& model, const nlohmann::json& figures) const;
  std::string source_;
  std::vector<std::string> overrides_;
  bool json_ = false, toml_ = false;
  RunConfig config_;
  fs::path folder_;  // of a model; empty for a recipe
};

int InspectCommand::print_recipe() const {
  if (json_) fail_usage("--toml and --json exclude each other");
  if (!source_.ends_with(".toml"))
    fail_usage("'{}' is not a recipe (.toml); --toml prints a recipe", source_);
  const nlohmann::json tree = read_recipe(source_, overrides_);
  make_run_config(tree, source_);  // fails for a wrong setting
  fmt::print("{}", to_toml(tree));
  return 0;
}

void InspectCommand::read() {
  if (!source_.ends_with(".toml")) {
    const fs::path folder = resolve_model_path(source_);
    folder_ = folder;
    config_ = folder_config(folder, overrides_, source_);
    config_.data.context = std::min(config_.data.context, config_.model.max_position_embeddings);
    resolve(config_.model, 0, config_.data.context);
    return;
  }
  config_ = open_resolved_recipe(source_, overrides_).config;
}

// Memory of the merged matrices that generate and eval would keep on this machine. The meta device
// tells which layers have one without allocating any.
double InspectCommand::premerge_bytes() const {
  const at::Device device = open_device(config_);
  const PremergeSettings settings = premerge_settings(config_, folder_, device);
  const TransformedModel model =
      build_model(config_.model, config_.transform, source_, false, &settings);
  if (model.premerged.empty()) return 0;
  model.decoder->allocate(at::Device(at::kMeta), compute_dtype(config_));
  int64_t bytes = 0;
  for (const PremergeGroup& group : model.premerged) bytes += group.layer->bytes();
  return static_cast<double>(bytes);
}

nlohmann::json InspectCommand::figures(const Decoder& model) const {
  const DecoderShape shape = shape_of(model, config_.data.context);
  const Flops forward = forward_flops_per_token(shape);
  const double training = training_flops_per_token(shape).total();
  const RunCost cost = cost_of_run(config_, model, resolve_steps(config_, model.arena().count()));
  double n = static_cast<double>(model.arena().count()),
         trained = static_cast<double>(model.arena().trainable_count());
  for (const Parameter& guide : model.arena().guides()) {  // at the beginning of the run
    n += static_cast<double>(guide.numel());
    trained += static_cast<double>(guide.numel());
  }
  const double compute = config_.train.precision == "bf16" ? 2 : 4;
  // Master weights, a half-precision copy where there is one, gradients, two fp32 moments.
  const double state = 4 * n + (compute < 4 ? compute * n : 0) + compute * trained + 8 * trained;
  return {{"parameters", model.arena().count()},
          {"trainable_parameters", model.arena().trainable_count()},
          {"parameters_without_embeddings", matrix_parameters(shape).without_embeddings()},
          {"ffn_parameters", matrix_parameters(shape).ffn},
          {"forward_flops_per_token",
           {{"attention_projections", forward.attention_projections},
            {"attention_products", forward.attention_products},
            {"ffn", forward.ffn},
            {"head", forward.head},
            {"total", forward.total()}}},
          {"training_flops_per_token", training},
          {"guide_flops_per_token", guide_flops_per_token(shape).total()},
          {"steps", static_cast<int64_t>(cost.run.steps)},
          {"guided_steps", static_cast<int64_t>(cost.run.guided_steps)},
          {"tokens", cost.run.steps * cost.run.tokens_per_step},
          {"training_flops", cost.flops.total()},
          {"training_flops_by_part",
           {{"attention", cost.flops.attention_projections + cost.flops.attention_products},
            {"ffn", cost.flops.ffn},
            {"head", cost.flops.head}}},
          {"state_bytes", state},
          {"premerge_bytes", premerge_bytes()}};
}

void InspectCommand::print(const Decoder& model, const nlohmann::json& f) const {
  Table shapes({{"parameter"}, {"shape"}, {"count", Align::kRight}});
  for (const Parameter& p : model.arena().parameters()) {
    shapes.add_row(
        {p.name, fmt::format("[{}]", fmt::join(p.shape, ", ")), format_integer(p.numel())});
  }
  shapes.add_rule();
  shapes.add_row({"all", "", format_integer(model.arena().count())});
  fmt::print("{}\n", shapes.str());
  Table parts({{"forward FLOPs per token"}, {"", Align::kRight}});
  for (const auto& [name, value] : f["forward_flops_per_token"].items()) {
    parts.add_row({name, format_number(value.get<double>())});
  }
  fmt::print("{}\n", parts.str());
  fmt::print("training        {} FLOPs per token\n",
             format_number(f["training_flops_per_token"].get<double>()));
  if (f["steps"].get<int64_t>() > 0) {
    const RunCost cost = cost_of_run(config_, model, resolve_steps(config_, model.arena().count()));
    fmt::print("the run         {}\n", describe(cost, config_));
  }
  fmt::print(
      "state           {} for weights, gradients and moments ({}); activations come on top\n",
      format_bytes(f["state_bytes"].get<double>()), config_.train.precision);
  if (const double merged = f["premerge_bytes"].get<double>(); merged > 0) {
    fmt::print("pre-merged      {} for merged matrices beside the factors, in inference\n",
               format_bytes(merged));
  }
}

int InspectCommand::run() {
  if (toml_) return print_recipe();
  read();
  const TransformedModel planned = plan_model(config_, source_);
  const Decoder& model = *planned.decoder;
  nlohmann::json f = figures(model);
  if (json_) {
    f["transforms"] = nlohmann::json::array();
    for (const PlanRow& row : planned.plan) {
      if (planned.rules.empty()) break;
      f["transforms"].push_back({{"match", row.match},
                                 {"kind", row.kind},
                                 {"modules", row.modules},
                                 {"dense_parameters", row.dense_parameters},
                                 {"parameters", row.parameters}});
    }
    fmt::print("{}\n", f.dump());
  } else {
    print(model, f);
    if (!planned.rules.empty()) fmt::print("\n{}", plan_table(planned));
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }

}  // namespace refract
