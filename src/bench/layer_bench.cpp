#include "bench/layer_bench.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/inputs.h"
#include "bench/layers.h"
#include "bench/timing.h"

namespace refract {
namespace {

struct LayerTimes {
  double forward_ms = 0, training_ms = 0;
};

// A forward and a forward and backward pass over x [tokens, in], each compared with the merged form
// first where there is one.
LayerTimes time_layers(BenchLayers& layers, const at::Tensor& input, const BenchSettings& settings,
                       const std::string& what) {
  const at::Device device = input.device();
  LayerTimes times;
  at::Tensor x = input.detach();
  {
    const at::NoGradGuard no_grad;
    const at::Tensor reference = layers.reference(x);
    if (reference.defined()) check_against(layers.forward(x, false), reference, what);
    times.forward_ms =
        time_work(device, settings.seconds, [&] { layers.forward(x, false); }).median_ms;
  }
  x.requires_grad_(true);
  const at::Tensor reference = layers.reference(x);
  const at::Tensor y = layers.forward(x, true);
  const at::Tensor grad = at::randn(y.sizes(), y.options().requires_grad(false));
  if (reference.defined()) {
    reference.backward(grad);
    const at::Tensor expected = x.grad().clone();
    x.mutable_grad().reset();
    y.backward(grad);
    check_against(x.grad(), expected, what + ", its gradient");
  }
  const auto train = [&] {
    x.mutable_grad().reset();
    layers.forward(x, true).backward(grad);
  };
  times.training_ms = time_work(device, settings.seconds, train).median_ms;
  return times;
}

struct Case {
  KindChoice kind;
  std::vector<ProjectionSpec> groups;
  int64_t tokens = 0;
};

// Times cases one after the other, each against the dense layers of its own shape.
class LayerBench {
 public:
  LayerBench(const BenchSettings& settings, BenchDevice bench, BenchReport& report)
      : settings_(settings), bench_(std::move(bench)), report_(report) {}

  void run(const Case& c, nlohmann::json row) {
    const LinearSpec& first = c.groups.front().members.front();
    BenchLayers layers(c.kind, c.groups, bench_.device, bench_.dtype);
    const at::Tensor x = random_input(c.tokens, first.in_features, bench_);
    const LayerTimes times = time_layers(layers, x, settings_, c.kind.label);
    // Gains are those over the dense row that is shown.
    if (c.kind.kind == "dense") dense_[key_of(c)] = times;
    const LayerTimes dense = time_dense(c, x);
    row["kind"] = c.kind.label;
    row["tokens"] = c.tokens;
    row["parameters"] = layers.parameters();
    row["share"] = static_cast<double>(layers.parameters()) / dense_parameters(c);
    row["forward_ms"] = times.forward_ms;
    row["training_ms"] = times.training_ms;
    row["forward_gain"] = dense.forward_ms / times.forward_ms;
    row["training_gain"] = dense.training_ms / times.training_ms;
    report_.add(row);
  }

 private:
  static double dense_parameters(const Case& c) {
    double sum = 0;
    for (const ProjectionSpec& group : c.groups) {
      for (const LinearSpec& member : group.members)
        sum += static_cast<double>(member.in_features * member.out_features);
    }
    return sum;
  }
  static std::string key_of(const Case& c) {
    std::string key = std::to_string(c.tokens);
    for (const ProjectionSpec& group : c.groups) {
      for (const LinearSpec& member : group.members)
        key += fmt::format(" {}x{}", member.in_features, member.out_features);
    }
    return key;
  }
  LayerTimes time_dense(const Case& c, const at::Tensor& x) {
    const std::string key = key_of(c);
    const auto known = dense_.find(key);
    if (known != dense_.end()) return known->second;
    BenchLayers layers({"dense", "dense", ""}, c.groups, bench_.device, bench_.dtype);
    return dense_[key] = time_layers(layers, x, settings_, "dense");
  }

  const BenchSettings& settings_;
  BenchDevice bench_;
  BenchReport& report_;
  std::map<std::string, LayerTimes> dense_;
};

struct KernelShape {
  const char* kind;
  int64_t tokens, in, out, blocks, rank;  // 0: not of this kind
};
constexpr KernelShape kKernelShapes[] = {
    {"block_shuffle", 16384, 2048, 2048, 4, 0},   {"block_shuffle", 8192, 8192, 32768, 16, 0},
    {"block_shuffle", 32768, 4096, 4096, 4, 0},   {"block_shuffle", 32768, 8192, 32768, 2, 0},
    {"block_shuffle", 65536, 4096, 16384, 16, 0}, {"block_dense", 16384, 2048, 512, 4, 1536},
    {"block_dense", 8192, 8192, 2048, 16, 6144},  {"block_dense", 32768, 4096, 1024, 4, 2048},
    {"block_dense", 32768, 2048, 16384, 2, 1024}, {"block_dense", 65536, 4096, 1024, 16, 2048},
    {"low_rank", 16384, 2048, 2048, 0, 1536},     {"low_rank", 8192, 8192, 8192, 0, 6144},
    {"low_rank", 32768, 4096, 4096, 0, 2048},     {"low_rank", 32768, 2048, 8192, 0, 1024},
    {"low_rank", 65536, 4096, 4096, 0, 2048}};

KindChoice choice_of(const KernelShape& shape) {
  nlohmann::json table = {{"kind", shape.kind}};
  std::string label = shape.kind;
  if (shape.blocks > 0) {
    table["blocks"] = shape.blocks;
    label += fmt::format(" blocks={}", shape.blocks);
  }
  if (shape.rank > 0) {
    table["rank"] = shape.rank;
    label += fmt::format(" rank={}", shape.rank);
  }
  return {shape.kind, label, table.dump()};
}

bool wanted(const std::vector<std::string>& kinds, const std::string& kind) {
  return kinds.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// One width with so many tokens: the dense feed-forward, then every kind, each size once.
void run_width(LayerBench& layers, const MlpOptions& options, int64_t width, int64_t tokens) {
  const auto groups = feed_forward(width, 4 * width);
  layers.run({{"dense", "dense", ""}, groups, tokens}, {{"width", width}});
  std::vector<std::string> done;
  for (const int64_t share : parse_sizes(options.shares, "--shares")) {
    for (const KindChoice& kind :
         kinds_for_width(width, static_cast<double>(share) / 100, options.kinds)) {
      if (std::find(done.begin(), done.end(), kind.label) != done.end()) continue;
      done.push_back(kind.label);
      layers.run({kind, groups, tokens}, {{"width", width}});
    }
  }
}

}  // namespace

BenchReport bench_mlp(const MlpOptions& options) {
  const BenchDevice bench = open_bench_device(options.settings);
  const bool cuda = bench.device.is_cuda();
  const auto widths =
      parse_sizes(options.widths, "--widths", cuda ? "768,1024,1536,2048,4096,6144" : "768");
  const auto tokens =
      parse_sizes(options.tokens, "--tokens", cuda ? "16,256,2048,16384,32768" : "16,512");
  BenchReport report("mlp", bench,
                     {"width", "tokens", "kind", "share", "forward_ms", "forward_gain",
                      "training_ms", "training_gain"});
  LayerBench layers(options.settings, bench, report);
  for (const int64_t width : widths) {
    for (const int64_t count : tokens) run_width(layers, options, width, count);
  }
  return report;
}

BenchReport bench_kernel(const KernelOptions& options) {
  const BenchDevice bench = open_bench_device(options.settings);
  const bool cuda = bench.device.is_cuda();
  const int64_t most = options.shapes > 0 ? options.shapes : cuda ? 5 : 1;
  BenchReport report("kernel", bench,
                     {"kind", "in", "out", "tokens", "share", "forward_ms", "forward_gain",
                      "training_ms", "training_gain"});
  LayerBench layers(options.settings, bench, report);
  std::map<std::string, int64_t> seen;
  std::set<std::array<int64_t, 3>> dense;
  for (const KernelShape& shape : kKernelShapes) {
    if (!wanted(options.kinds, shape.kind) || ++seen[shape.kind] > most) continue;
    const int64_t tokens = options.tokens > 0 ? options.tokens : cuda ? shape.tokens : 256;
    const auto groups = single_layer(shape.in, shape.out);
    if (dense.insert({shape.in, shape.out, tokens}).second) {
      layers.run({{"dense", "dense", ""}, groups, tokens}, {{"in", shape.in}, {"out", shape.out}});
    }
    layers.run({choice_of(shape), groups, tokens}, {{"in", shape.in}, {"out", shape.out}});
  }
  return report;
}

}  // namespace refract
