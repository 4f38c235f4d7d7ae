#include "ops/common/cuda_runtime.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "ops/dense/embedding/embedding.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/dense/optimizer/optimizer.h"
#include "support/cuda_guard.h"

namespace refract {
namespace common_cuda_runtime_test {

TEST(Runtime, IsThereOrSaysWhyNot) {
  const bool present = cuda_runtime() != nullptr;
  EXPECT_EQ(present, cuda_unavailable_reason().empty()) << cuda_unavailable_reason();
  EXPECT_TRUE(!present || cuda_available());
  EXPECT_EQ(cuda_available(), at::globalContext().hasCUDA());
  EXPECT_EQ(cuda_unavailable_reason().find('\n'), std::string::npos);
}

// Streams are per thread: each test gets a thread of its own, so that none changes another's.
template <class F>
void on_side_stream(F&& f) {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      cuda_runtime()->use_side_stream();
      f();
      cuda_runtime()->synchronize();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

#define REFRACT_RUNTIME_OR_SKIP() \
  REFRACT_CUDA_OR_SKIP();         \
  ASSERT_NE(cuda_runtime(), nullptr) << cuda_unavailable_reason()

TEST(Runtime, DescribesTheDevice) {
  REFRACT_RUNTIME_OR_SKIP();
  const CudaRuntime& cuda = *cuda_runtime();
  EXPECT_GE(cuda.device_count(), 1);
  EXPECT_FALSE(cuda.device_name().empty());
  EXPECT_GT(cuda.multiprocessors(), 0);
  EXPECT_GE(cuda.compute_capability(), 80);
  EXPECT_TRUE(cuda.has_kernels());
  // PTX alone, as a GPU newer than this library finds it, has no kernels for 9.0.
  const char* ptx_only = std::getenv("CUDA_FORCE_PTX_JIT");
  const bool images = ptx_only == nullptr || std::string(ptx_only) != "1";
  EXPECT_EQ(cuda.has_hopper_kernels(), images && cuda.compute_capability() == 90);
  EXPECT_GT(cuda.total_memory(), int64_t{1} << 30);
  cuda.reset_peak();
  const int64_t before = cuda.memory_allocated();
  { const at::Tensor t = at::zeros({1 << 20}, at::TensorOptions().device(at::kCUDA)); }
  EXPECT_GE(cuda.peak_memory_allocated(), before + (int64_t{4} << 20));
  EXPECT_EQ(cuda.memory_allocated(), before);
}

// A small model whose step has everything that a captured training step has: embedding, product,
// chunked loss, autograd's own thread, clipping and the optimizer over an arena.
struct Model {
  static constexpr int64_t kRows = 128, kWidth = 32, kTokens = 256;
  at::Tensor master, grads, exp_avg, exp_avg_sq, compute, hyper, control, step, tokens, targets,
      loss;
  at::Tensor wte, inner;

  explicit Model(const at::Tensor& initial) {
    const auto gpu = at::TensorOptions().device(at::kCUDA);
    master = initial.to(at::kCUDA).clone();
    compute = master.to(at::kBFloat16);
    grads = at::zeros_like(compute);
    exp_avg = at::zeros_like(master);
    exp_avg_sq = at::zeros_like(master);
    hyper = at::tensor({1e-2f, 0.1f, 0.05f, 0.0f}).to(at::kCUDA);
    control = at::zeros({4}, gpu);
    step = at::zeros({1}, gpu.dtype(at::kLong));
    tokens = at::zeros({4, kTokens / 4}, gpu.dtype(at::kLong));
    targets = at::zeros({4, kTokens / 4}, gpu.dtype(at::kLong));
    loss = at::zeros({}, gpu);
    wte = view(compute, 0, kRows);
    inner = view(compute, kRows, kWidth);
    wte.requires_grad_(true);
    inner.requires_grad_(true);
    wte.mutable_grad() = view(grads, 0, kRows);
    inner.mutable_grad() = view(grads, kRows, kWidth);
  }

  static int64_t size() { return (kRows + kWidth) * kWidth; }
  static at::Tensor view(const at::Tensor& arena, int64_t row, int64_t rows) {
    return arena.narrow(0, row * kWidth, rows * kWidth).view({rows, kWidth}).detach();
  }

  void train() {
    const at::Tensor x = at::linear(embed(tokens, wte), inner);
    const at::Tensor sum = linear_cross_entropy(x, wte, targets, kRows - 3).loss_sum;
    torch::autograd::backward({sum / static_cast<double>(kTokens)}, {});
    const at::Tensor norm = global_norm(grads);
    loss.copy_(sum.detach());
    step.add_(1);
    step_control_(control, norm, loss, 1.0, step);
    AdamW settings;
    settings.n_decay = kRows * kWidth;
    settings.zero_grads = true;
    adamw_(master, compute, grads, exp_avg, exp_avg_sq, hyper, control, settings);
  }
};

TEST(Runtime, ReplaysEqualEagerStepsBitForBit) {
  REFRACT_RUNTIME_OR_SKIP();
  const at::Tensor initial = at::randn({Model::size()}) * 0.1;
  std::vector<at::Tensor> batches;
  for (int i = 0; i < 12; ++i) {
    batches.push_back(at::randint(Model::kRows - 3, {2, 4, Model::kTokens / 4},
                                  at::TensorOptions().dtype(at::kLong)));
  }
  on_side_stream([&] {
    Model eager(initial), captured(initial);
    std::unique_ptr<CudaGraph> graph;
    for (int i = 0; i < 12; ++i) {
      for (Model* model : {&eager, &captured}) {
        model->tokens.copy_(batches[i][0]);
        model->targets.copy_(batches[i][1]);
      }
      eager.train();
      // Three warm steps, then the capture, which runs nothing, then replays.
      if (i == 3) graph = cuda_runtime()->capture([&] { captured.train(); });
      if (graph) {
        graph->replay();
      } else {
        captured.train();
      }
      EXPECT_TRUE(at::equal(eager.loss, captured.loss)) << "step " << i;
      EXPECT_TRUE(at::equal(eager.master, captured.master)) << "step " << i;
    }
    EXPECT_EQ(captured.step.item<int64_t>(), 12);
    EXPECT_FALSE(at::equal(captured.master.cpu(), initial)) << "nothing was trained";
  });
}

TEST(Runtime, CaptureNeedsASideStreamAndPassesErrorsOn) {
  REFRACT_RUNTIME_OR_SKIP();
  EXPECT_THROW(cuda_runtime()->capture([] {}), c10::Error);
  on_side_stream([&] {
    const at::Tensor t = at::zeros({8}, at::TensorOptions().device(at::kCUDA));
    EXPECT_THROW(cuda_runtime()->capture([&] {
      t.add_(1);
      throw std::runtime_error("from inside");
    }),
                 std::runtime_error);
    // The stream is usable afterwards.
    auto graph = cuda_runtime()->capture([&] { t.add_(1); });
    graph->replay();
    graph->replay();
    EXPECT_EQ(t.sum().item<float>(), 16.0f);
  });
}

TEST(Runtime, PinnedCopiesAndEvents) {
  REFRACT_RUNTIME_OR_SKIP();
  on_side_stream([&] {
    const CudaRuntime& cuda = *cuda_runtime();
    const at::Tensor host = cuda.empty_pinned({1 << 20}, at::kFloat);
    EXPECT_TRUE(host.is_pinned());
    const at::Tensor device = at::zeros({1 << 20}, at::TensorOptions().device(at::kCUDA));
    auto start = cuda.event(true), copied = cuda.event(true);
    EXPECT_TRUE(copied->done());
    start->record();
    for (int i = 1; i <= 3; ++i) {
      copied->wait();  // the last copy has read `host`
      host.fill_(i);
      cuda.copy_async(device, host);
      copied->record();
      EXPECT_EQ(device.sum().item<float>(), static_cast<float>(i << 20));
    }
    EXPECT_TRUE(copied->done());
    EXPECT_GT(copied->milliseconds_since(*start), 0.0);
  });
}

TEST(Runtime, AttentionOrderAndDeterminismCanBeSet) {
  REFRACT_RUNTIME_OR_SKIP();
  const CudaRuntime& cuda = *cuda_runtime();
  const auto bf16 = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor q = at::randn({2, 4, 128, 64}, bf16);
  const at::Tensor plain = at::scaled_dot_product_attention(q, q, q, {}, 0.0, true);
  cuda.prefer_cudnn_attention(true);
  const at::Tensor cudnn = at::scaled_dot_product_attention(q, q, q, {}, 0.0, true);
  EXPECT_LT((cudnn - plain).abs().max().item<float>(), 0.05f);
  cuda.set_deterministic(true);
  EXPECT_TRUE(at::globalContext().deterministicAlgorithms());
  const at::Tensor fixed = at::scaled_dot_product_attention(q, q, q, {}, 0.0, true);
  EXPECT_LT((fixed - plain).abs().max().item<float>(), 0.05f);
  cuda.set_deterministic(false);
  cuda.prefer_cudnn_attention(false);
}

}  // namespace common_cuda_runtime_test
}  // namespace refract
