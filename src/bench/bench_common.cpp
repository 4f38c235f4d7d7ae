#include "bench/bench_common.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/bench_timing.h"
#include "core/config.h"
#include "core/error.h"
#include "core/random.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "ops/common/cuda_runtime.h"
#include "report/table.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

std::string cell(const nlohmann::json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return format_integer(value.get<int64_t>());
  return format_number(value.get<double>());
}

// Where a recipe's model is shorter than the benchmark wants, it is made longer: speed does not
// depend on what positions mean.
void lengthen(RunConfig& config, int64_t least) {
  int64_t& longest = config.model.max_position_embeddings;
  longest = std::max(longest, least);
}

// Starting values by an SVD of every layer take minutes and change no time: normal ones instead,
// where a kind has the choice.
void draw_normal(RunConfig& config) {
  if (config.transform.empty()) return;
  nlohmann::json rules = nlohmann::json::parse(config.transform);
  if (!rules.is_array()) return;
  for (auto& rule : rules) {
    if (!rule.contains("kind") || rule["kind"] == "none") continue;
    const auto kind = find_kind(rule["kind"].get<std::string>()).make();
    Fields fields;
    kind->describe(fields);
    if (fields.find("init")) rule["init"] = "normal";
  }
  config.transform = rules.dump();
}

}  // namespace

std::vector<std::string> BenchSettings::with_precision() const {
  if (seconds <= 0) fail_usage("--seconds {} must be positive", seconds);
  std::vector<std::string> all = overrides;
  const bool given = std::any_of(all.begin(), all.end(), [](const std::string& text) {
    return text.starts_with("train.precision=");
  });
  const bool on_cpu = std::any_of(all.begin(), all.end(), [](const std::string& text) {
    return text == "train.device=cpu" || text == "train.device=\"cpu\"";
  });
  if (!given && !on_cpu && cuda_runtime()) all.emplace_back("train.precision=bf16");
  return all;
}

BenchDevice bench_device(const RunConfig& config) {
  BenchDevice bench;
  bench.device = open_device(config);
  bench.dtype = compute_dtype(config);
  bench.name = device_key(bench.device);
  bench.precision = config.train.precision;
  return bench;
}

BenchDevice open_bench_device(const BenchSettings& settings) {
  return bench_device(
      make_run_config(overrides_tree(settings.with_precision()), "the command line"));
}

struct BenchReport::Content {
  nlohmann::json rows = nlohmann::json::array(), extra = nlohmann::json::object();
};

BenchReport::BenchReport(std::string name, const BenchDevice& device,
                         std::vector<std::string> columns)
    : name_(std::move(name)),
      device_(device),
      columns_(std::move(columns)),
      content_(std::make_unique<Content>()) {}

BenchReport::~BenchReport() = default;

nlohmann::json& BenchReport::extra() { return content_->extra; }
const nlohmann::json& BenchReport::rows() const { return content_->rows; }

void BenchReport::add(const nlohmann::json& row) {
  content_->rows.push_back(row);
  std::string text;
  for (const std::string& column : columns_)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", column,
                        cell(content_->rows.back().value(column, nlohmann::json())));
  fmt::print(stderr, "{}\n", text);
}

void BenchReport::print(bool json) const {
  if (json) {
    nlohmann::json out = content_->extra;
    out["bench"] = name_;
    out["device"] = device_.name;
    out["precision"] = device_.precision;
    out["rows"] = content_->rows;
    fmt::print("{}\n", out.dump());
    return;
  }
  std::vector<Table::Column> columns;
  for (const std::string& name : columns_) {
    const bool text = !content_->rows.empty() && content_->rows[0][name].is_string();
    columns.push_back({name, text ? Align::kLeft : Align::kRight});
  }
  Table table(columns);
  for (const auto& row : content_->rows) {
    std::vector<std::string> cells;
    for (const std::string& name : columns_)
      cells.push_back(row.contains(name) ? cell(row[name]) : "-");
    table.add_row(cells);
  }
  fmt::print("{}, {}\n{}", device_.name, device_.precision, table.str());
}

void BenchModel::set_premerge(std::optional<int64_t> tokens) {
  const PremergeSettings settings = premerge_settings(config, folder, device.device);
  for (const PremergeGroup& group : premerged) {
    group.layer->set_tokens(
        tokens.value_or(settings.table.find(group.shape, settings.device, settings.precision)
                            .value_or(settings.default_tokens)));
  }
}

BenchModel open_bench_model(const std::string& source, const BenchSettings& settings,
                            int64_t least_context) {
  BenchModel bench;
  const std::vector<std::string> overrides = settings.with_precision();
  if (source.ends_with(".toml")) {
    bench.config = open_resolved_recipe(source, overrides).config;
    lengthen(bench.config, least_context);
    draw_normal(bench.config);
  } else {
    bench.folder = resolve_model_path(source);
    bench.config = folder_config(bench.folder, overrides, source);
    resolve(bench.config.model, 0, bench.config.data.context);
  }
  bench.config.self_guided.mode = "none";  // the model that is left when the guide is gone
  bench.device = bench_device(bench.config);
  PremergeSettings premerge = premerge_settings(bench.config, bench.folder, bench.device.device);
  premerge.mode = "auto";
  TransformedModel planned = plan_model(bench.config, source, &premerge);
  bench.model = std::move(planned.decoder);
  bench.premerged = std::move(planned.premerged);
  bench.model->allocate(bench.device.device, bench.device.dtype);
  if (bench.folder.empty()) {
    bench.model->initialize(static_cast<uint64_t>(bench.config.run.seed));
  } else {
    load_weights(*bench.model, bench.folder);
  }
  return bench;
}

void check_model(BenchModel& bench, int64_t tokens) {
  const at::NoGradGuard no_grad;
  const bool mergeable = std::all_of(bench.premerged.begin(), bench.premerged.end(),
                                     [](const auto& group) { return group.layer->mergeable(); });
  if (!mergeable || bench.premerged.empty()) return;
  const at::Tensor input =
      random_tokens(1, tokens, bench.config.model.vocab_size, 1).to(bench.device.device);
  bench.set_premerge(0);
  const at::Tensor structured = bench.model->hidden({}, input);
  bench.set_premerge(kPremergeAlways);
  const at::Tensor merged = bench.model->hidden({}, input);
  bench.set_premerge(std::nullopt);
  check_against(structured, merged, "the model's structured form");
}

at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed) {
  RandomStream random(seed, "bench");
  at::Tensor tokens = at::empty({batch, length}, at::kInt);
  int32_t* data = tokens.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < batch * length; ++i)
    data[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary)));
  return tokens;
}

at::Tensor random_input(int64_t tokens, int64_t width, const BenchDevice& bench) {
  return at::randn({tokens, width}, at::TensorOptions().device(bench.device)).to(bench.dtype);
}

std::vector<int64_t> parse_sizes(std::string text, const std::string& option,
                                 const std::string& otherwise) {
  if (text.empty()) text = otherwise;
  std::vector<int64_t> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, value);
    if (error != std::errc() || rest != text.data() + end || value < 1)
      fail_usage("{} {} is no list of sizes; write for example {} 16,512", option, text, option);
    sizes.push_back(value);
    begin = end + 1;
  }
  return sizes;
}

}  // namespace refract
