// How near each fused op is to the memory's speed, at the shapes of GPT-2 124M with 32 x 1024
// tokens in bf16: time of a call inside a captured graph, the bytes that the op has to move, and
// their quotient. Between calls 256 MiB are overwritten (and their time taken off), so that nothing
// is found in the second-level cache that a training step would not find there.
//   build/release/bin/bench_ops_gpu [TEXT]      only the ops whose name holds TEXT
// Ends with code 77 where there is no GPU to time anything on.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "ops/common/cuda_runtime.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/attention/rope.h"
#include "ops/dense/embedding/embedding.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/dense/norm/norm.h"
#include "ops/dense/optimizer/optimizer.h"

namespace refract {
namespace {

constexpr int64_t kBatch = 32, kLength = 1024, kTokens = kBatch * kLength;
constexpr int64_t kWidth = 768, kInner = 3072, kClasses = 50257, kPadded = 50304;
constexpr int64_t kHeads = 12, kHeadDim = 64;
constexpr int64_t kParameters = 124'475'904;
constexpr int kCalls = 10;

class Table {
 public:
  explicit Table(std::string filter) : filter_(std::move(filter)) {
    flush_ = at::zeros({int64_t{64} << 20}, options(at::kFloat));
    flush_ms_ = measure([&] {});
    fmt::print("{}\n{:<44} {:>9} {:>10} {:>8}\n", cuda_runtime()->device_name(), "op", "ms", "MB",
               "TB/s");
  }

  static at::TensorOptions options(at::ScalarType dtype) {
    return at::TensorOptions().device(at::kCUDA).dtype(dtype);
  }

  // bytes: what the op must read and write; 0 prints neither them nor a rate (bound by arithmetic).
  template <class F>
  void row(const std::string& name, double bytes, F&& f) {
    if (name.find(filter_) == std::string::npos) return;
    const double ms = measure(f) - flush_ms_;
    const bool counted = bytes > 0;
    fmt::print("{:<44} {:>9.4f} {:>10} {:>8}\n", name, ms,
               counted ? fmt::format("{:.1f}", bytes / 1e6) : "",
               counted ? fmt::format("{:.2f}", bytes / ms / 1e9) : "");
    std::fflush(stdout);
  }

 private:
  template <class F>
  double measure(F&& f) {
    const CudaRuntime& cuda = *cuda_runtime();
    for (int i = 0; i < 3; ++i) f();
    auto graph = cuda.capture([&] {
      for (int i = 0; i < kCalls; ++i) {
        flush_.zero_();
        f();
      }
    });
    graph->replay();
    double best = 1e30;
    for (int repeat = 0; repeat < 5; ++repeat) {
      auto start = cuda.event(true), stop = cuda.event(true);
      start->record();
      graph->replay();
      stop->record();
      best = std::min(best, stop->milliseconds_since(*start) / kCalls);
    }
    return best;
  }

  std::string filter_;
  at::Tensor flush_;
  double flush_ms_ = 0;
};

constexpr double kRow = 2.0 * kTokens * kWidth;       // bytes of one [tokens, C] in bf16
constexpr double kInnerRow = 2.0 * kTokens * kInner;  // of one [tokens, F]

void norms(Table& table) {
  const auto bf16 = Table::options(at::kBFloat16);
  const at::Tensor x = at::randn({kTokens, kWidth}, bf16), residual = at::randn_like(x);
  const at::Tensor weight = at::ones({kWidth}, bf16), bias = at::zeros({kWidth}, bf16);
  for (const bool rms : {false, true}) {
    const std::string kind = rms ? "rms" : "layer";
    const std::optional<at::Tensor> b = rms ? std::nullopt : std::optional<at::Tensor>(bias);
    table.row(kind + " norm", 2 * kRow,
              [&] { norm_forward(x, std::nullopt, weight, b, 1e-5, rms); });
    table.row(kind + " add_norm", 4 * kRow,
              [&] { norm_forward(x, residual, weight, b, 1e-5, rms); });
    const auto [y, sum, mean, rstd] = norm_forward(x, residual, weight, b, 1e-5, rms);
    table.row(kind + " norm backward", 3 * kRow,
              [&] { norm_backward(y, std::nullopt, sum, mean, rstd, weight, !rms, rms); });
    table.row(kind + " add_norm backward", 4 * kRow,
              [&] { norm_backward(y, residual, sum, mean, rstd, weight, !rms, rms); });
  }
}

void activations(Table& table) {
  const auto bf16 = Table::options(at::kBFloat16);
  const at::Tensor x = at::randn({kTokens, kInner}, bf16), bias = at::randn({kInner}, bf16);
  const at::Tensor grad = at::randn({kTokens, kInner}, bf16);
  for (const bool tanh_form : {true, false}) {
    const std::string kind = tanh_form ? "bias_gelu tanh" : "bias_gelu erf";
    table.row(kind, 2 * kInnerRow, [&] { bias_gelu(x, bias, tanh_form); });
    table.row(kind + " backward", 3 * kInnerRow,
              [&] { bias_gelu_backward(grad, x, bias, tanh_form); });
  }
  const at::Tensor half = grad.narrow(1, 0, kInner / 2).contiguous();
  table.row("swiglu, F = 1536", 1.5 * kInnerRow, [&] { swiglu(x, std::nullopt); });
  table.row("swiglu backward, F = 1536", 2.5 * kInnerRow,
            [&] { swiglu_backward(half, x, std::nullopt); });
}

void ropes(Table& table) {
  const at::Tensor x = at::randn({kBatch, kLength, 3 * kWidth}, Table::options(at::kBFloat16));
  const auto fp32 = Table::options(at::kFloat);
  const at::Tensor angle =
      at::outer(at::arange(kLength, fp32), at::arange(kHeadDim / 2, fp32).mul(-0.3).exp());
  const at::Tensor cos = angle.cos(), sin = angle.sin();
  table.row("rope of q and k in [q, k, v]", 6 * kRow,
            [&] { rope(x, cos, sin, 0, 2 * kHeads, kHeadDim); });
}

void loss(Table& table) {
  const auto bf16 = Table::options(at::kBFloat16);
  const at::Tensor x = at::randn({kTokens, kWidth}, bf16);
  const at::Tensor weight = at::randn({kPadded, kWidth}, bf16) * 0.02;
  const at::Tensor targets = at::randint(kClasses, {kTokens}, Table::options(at::kLong));
  for (const int64_t rows : {2048, 4096, 8192, 16384, 32768}) {
    table.row(fmt::format("linear_cross_entropy, {} rows a chunk", rows), 0, [&] {
      linear_cross_entropy_forward(x, weight, targets, kClasses, true, true, rows);
    });
  }
  table.row("linear_cross_entropy, automatic chunk", 0,
            [&] { linear_cross_entropy_forward(x, weight, targets, kClasses, true, true); });
  table.row("linear_cross_entropy, no gradient", 0,
            [&] { linear_cross_entropy_forward(x, weight, targets, kClasses, false, false); });
  const at::Tensor dweight = at::randn({kPadded, kWidth}, Table::options(at::kFloat));
  const at::Tensor scale = at::ones({}, Table::options(at::kFloat));
  table.row("scale_cast of dweight, fp32 to bf16", 6.0 * kPadded * kWidth,
            [&] { scale_cast(dweight, scale, at::kBFloat16); });
}

void embeddings(Table& table) {
  const auto bf16 = Table::options(at::kBFloat16);
  const at::Tensor wte = at::randn({kPadded, kWidth}, bf16);
  const at::Tensor wpe = at::randn({kLength, kWidth}, bf16);
  // Squares of uniform numbers: some tokens are frequent, as in text.
  const at::Tensor tokens = at::randn({kBatch, kLength}, Table::options(at::kFloat))
                                .abs()
                                .pow(3)
                                .mul(1000)
                                .clamp_max(kClasses - 1)
                                .to(at::kLong);
  const at::Tensor grad = at::randn({kBatch, kLength, kWidth}, bf16);
  table.row("embed", 2 * kRow, [&] { embed(tokens, wte, wpe); });
  table.row("embed backward, tokens", kRow + 2.0 * kPadded * kWidth,
            [&] { embed_backward(grad, tokens, kPadded); });
  table.row("embed backward, positions", kRow, [&] { embed_positions_backward(grad, kLength, 0); });
}

void optimizers(Table& table) {
  const auto fp32 = Table::options(at::kFloat);
  const at::Tensor master = at::randn({kParameters}, fp32), m = at::zeros_like(master);
  const at::Tensor v = at::zeros_like(master), grads32 = at::randn_like(master);
  const at::Tensor compute = master.to(at::kBFloat16), grads = compute.clone();
  const at::Tensor hyper = at::ones({4}, fp32).mul(1e-3), control = at::zeros({4}, fp32);
  AdamW settings;
  settings.n_decay = kParameters - 100'000;
  const double n = static_cast<double>(kParameters);
  table.row("adamw_, bf16 gradients and weights", (24 + 4) * n,
            [&] { adamw_(master, compute, grads, m, v, hyper, control, settings); });
  settings.zero_grads = true;
  table.row("adamw_, the same, zeroing the gradients", (24 + 6) * n,
            [&] { adamw_(master, compute, grads, m, v, hyper, control, settings); });
  table.row("adamw_, fp32 gradients, zeroing", (24 + 10) * n,
            [&] { adamw_(master, compute, grads32, m, v, hyper, control, settings); });
  table.row("global_norm, bf16", 2 * n, [&] { global_norm(grads); });
  table.row("global_norm, fp32", 4 * n, [&] { global_norm(grads32); });
  table.row("accumulate_", 12 * n, [&] { accumulate_(grads32, grads); });
  const at::Tensor one = at::ones({}, fp32), step = at::zeros({1}, Table::options(at::kLong));
  table.row("step_control_", 0, [&] { step_control_(control, one, one, 1.0, step); });
}

void time_all(const std::string& filter) {
  cuda_runtime()->use_side_stream();
  Table table(filter);
  norms(table);
  activations(table);
  ropes(table);
  embeddings(table);
  optimizers(table);
  loss(table);
}

}  // namespace
}  // namespace refract

int main(int argc, char** argv) {
  constexpr int kNothingToTime = 77;  // scripts/bench goes on after it
  const std::string_view filter = argc > 1 ? argv[1] : "";
  if (argc > 2 || filter.starts_with('-')) {
    fmt::print(stderr, "usage: bench_ops_gpu [TEXT]      only the ops whose name holds TEXT\n");
    return filter == "--help" ? 0 : 2;
  }
  if (refract::cuda_runtime() == nullptr) {
    fmt::print(stderr, "bench_ops_gpu: {}\n", refract::cuda_unavailable_reason());
    return kNothingToTime;
  }
  refract::time_all(std::string(filter));
  return 0;
}
