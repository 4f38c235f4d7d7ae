#include "runs/session.h"

#include <ATen/Parallel.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/toml.h"
#include "data/tokenize.h"
#include "formats/hf_config.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "ops/common/cuda_runtime.h"
#include "report/table.h"
#include "train/self_guided.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// A run's checkpoint holds the settings it was trained with, its transform rules among them.
nlohmann::json saved_settings(const fs::path& folder) {
  const fs::path file = folder / "config.toml";
  return fs::exists(file) ? read_toml(file) : nlohmann::json::object();
}

// Of these settings: the folder's config.json describes the model, those of its training stay where
// they say how to run it.
RunConfig config_of(const fs::path& folder, nlohmann::json saved,
                    const std::vector<std::string>& overrides, const std::string& where) {
  saved.erase("model");
  saved.erase("init");
  saved.erase("self_guided");  // a saved model has no guides
  merge_overrides(saved, overrides);
  const ModelConfig base = read_model_config(folder);
  RunConfig config = make_run_config(saved, where, &base);
  if (!sets_key(saved, "data.context")) config.data.context = config.model.max_position_embeddings;
  return config;
}

// "model name : Intel(R) Xeon(R) ..." of the first processor.
std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "CPU";
}

}  // namespace

at::Device open_device(const RunConfig& config) {
  if (config.train.threads > 0) at::set_num_threads(static_cast<int>(config.train.threads));
  if (config.train.device == "cpu") return at::Device(at::kCPU);
  if (const CudaRuntime* cuda = cuda_runtime()) {
    cuda->set_deterministic(config.train.deterministic);
    cuda->prefer_cudnn_attention(!config.train.deterministic);
    cuda->use_side_stream();
  }
  if (!cuda_available()) {
    if (config.train.device == "cuda")
      fail("train.device = \"cuda\", but {}", cuda_unavailable_reason());
    return at::Device(at::kCPU);
  }
  if (!cuda_runtime() && config.train.cuda_graph == "on") {
    fail("train.cuda_graph = \"on\", but {}", cuda_unavailable_reason());
  }
  return at::Device(at::kCUDA, 0);
}

std::string device_name(at::Device device) {
  if (device.is_cuda()) return cuda_runtime() ? cuda_runtime()->device_name() : "CUDA";
  return fmt::format("CPU ({} threads)", at::get_num_threads());
}

std::string device_key(at::Device device) {
  if (device.is_cuda()) return device_name(device);
  return fmt::format("{}, {} threads", processor_name(), at::get_num_threads());
}

at::ScalarType compute_dtype(const RunConfig& config) {
  return config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

Recipe open_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const nlohmann::json tree = read_recipe(path, overrides);
  Recipe recipe;
  recipe.names_tokenizer = sets_key(tree, "data.tokenizer");
  std::string from = "random";
  if (sets_key(tree, "init.from") && tree["init"]["from"].is_string())
    from = tree["init"]["from"].get<std::string>();
  if (from == "random") {
    recipe.config = make_run_config(tree, path);
  } else {
    recipe.source = resolve_model_path(from);
    const ModelConfig base = read_model_config(recipe.source);
    recipe.config = make_run_config(tree, path, &base);
  }
  return recipe;
}

Recipe open_resolved_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  Recipe recipe = open_recipe(path, overrides);
  int64_t vocabulary = 0;
  if (recipe.config.model.vocab_size == 0) {  // only then is the tokenizer worth opening
    const auto tokenizer = !recipe.source.empty() && !recipe.names_tokenizer
                               ? folder_tokenizer(recipe.source)
                               : nullptr;
    vocabulary = (tokenizer ? tokenizer : make_tokenizer(recipe.config.data))->vocab_size();
  }
  resolve(recipe.config.model, vocabulary, recipe.config.data.context);
  return recipe;
}

std::shared_ptr<const Tokenizer> folder_tokenizer(const fs::path& folder) {
  for (const char* name :
       {"tokenizer.json", "vocab.json", "tokenizer.model", "chars.json", "bytes.json"}) {
    if (fs::exists(folder / name)) return open_tokenizer(folder.string());
  }
  return nullptr;
}

fs::path premerge_file(const fs::path& folder) {
  const bool checkpoint = folder.parent_path().filename() == "checkpoints";
  return (checkpoint ? folder.parent_path().parent_path() : folder) / "premerge.toml";
}

PremergeSettings premerge_settings(const RunConfig& config, const fs::path& folder,
                                   at::Device device) {
  PremergeSettings settings;
  settings.mode = config.decode.premerge;
  if (!folder.empty()) settings.table = PremergeTable::read(premerge_file(folder));
  settings.device = device_key(device);
  settings.precision = config.train.precision;
  settings.default_tokens = default_premerge_tokens(device.is_cuda());
  return settings;
}

RunConfig folder_config(const fs::path& folder, const std::vector<std::string>& overrides,
                        const std::string& where) {
  return config_of(folder, saved_settings(folder), overrides, where);
}

LoadedModel load_model(const std::string& specification,
                       const std::vector<std::string>& overrides) {
  LoadedModel loaded;
  loaded.folder = resolve_model_path(specification);
  const nlohmann::json saved = saved_settings(loaded.folder);
  loaded.config = config_of(loaded.folder, saved, overrides, specification);
  if (sets_key(saved, "init.from")) loaded.started_from = saved["init"]["from"].get<std::string>();
  if (sets_key(overrides_tree(overrides), "data.tokenizer")) {
    loaded.tokenizer = open_tokenizer(loaded.config.data.tokenizer);
  } else {
    loaded.tokenizer = folder_tokenizer(loaded.folder);
  }
  resolve(loaded.config.model, 0, loaded.config.data.context);
  const at::Device device = open_device(loaded.config);
  const PremergeSettings premerge = premerge_settings(loaded.config, loaded.folder, device);
  TransformedModel planned = plan_model(loaded.config, specification, &premerge);
  loaded.model = std::move(planned.decoder);
  loaded.premerged = std::move(planned.premerged);
  loaded.rules = std::move(planned.rules);
  loaded.model->allocate(device, compute_dtype(loaded.config));
  load_weights(*loaded.model, loaded.folder);
  return loaded;
}

TransformedModel plan_model(RunConfig& config, const std::string& where,
                            const PremergeSettings* premerge) {
  TransformedModel model = build_model(config.model, config.transform, where,
                                       config.self_guided.mode != "none", premerge);
  config.transform = model.rules.to_json();
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

RunCost cost_of_run(const RunConfig& config, const Decoder& model, int64_t fresh_steps) {
  RunCost cost;
  if (fresh_steps == 0) return cost;
  const SelfGuidedPlan plan(config, fresh_steps);
  cost.run = {static_cast<double>(plan.total_steps()), static_cast<double>(plan.count_guided()),
              static_cast<double>(config.train.batch * config.data.context)};
  cost.flops = training_flops(shape_of(model, config.data.context), cost.run);
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
