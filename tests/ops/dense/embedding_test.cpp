// Samples for tests/parity/test_every_op.py:
// opcheck: embed(torch.randint(11, (2, 3)), normal(11, 8), normal(5, 8), 1)
// opcheck: embed_backward(plain(2, 3, 8), torch.randint(11, (2, 3)), 11)
// opcheck: embed_positions_backward(plain(2, 3, 8), 5, 1)
#include "ops/dense/embedding/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "support/cuda_guard.h"
#include "support/gradcheck.h"
#include "support/tolerances.h"

namespace refract {
namespace dense_embedding_test {

using testing::expect_close;

struct Case {
  int64_t batch, length, rows, width, positions, offset;
};

// Odd widths, widths of whole vectors, few tokens (every run crosses tiles), many (none does).
const Case kCases[] = {{1, 1, 1, 1, 1, 0},     {2, 3, 5, 7, 9, 4},      {3, 33, 4, 24, 40, 7},
                       {4, 64, 1, 16, 64, 0},  {2, 50, 5000, 8, 50, 0}, {3, 100, 65, 200, 128, 28},
                       {2, 96, 3, 1040, 96, 0}};
const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf};

std::string name(const Case& c, at::ScalarType dtype) {
  return "B=" + std::to_string(c.batch) + " T=" + std::to_string(c.length) +
         " V=" + std::to_string(c.rows) + " C=" + std::to_string(c.width) + " " +
         c10::toString(dtype);
}

struct Result {
  at::Tensor out, wte, wpe;
};

Result run(const Case& c, at::ScalarType dtype, at::Device device, at::ScalarType token_type,
           bool with_positions) {
  at::Tensor seed = at::randint(c.rows, {c.batch, c.length}, at::TensorOptions().dtype(at::kLong));
  const at::Tensor tokens = seed.to(device, token_type);
  const at::Tensor wte = at::randn({c.rows, c.width}).to(device, dtype).requires_grad_(true);
  const at::Tensor wpe = at::randn({c.positions, c.width}).to(device, dtype).requires_grad_(true);
  const at::Tensor grad = at::randn({c.batch, c.length, c.width}).to(device, dtype);
  const std::optional<at::Tensor> positions =
      with_positions ? std::optional<at::Tensor>(wpe) : std::nullopt;
  const at::Tensor out = embed(tokens, wte, positions, c.offset);
  expect_close(out, composite::embed({tokens, wte.detach(), positions, c.offset}).detach(),
               name(c, dtype) + " out");
  std::vector<at::Tensor> inputs{wte};
  if (with_positions) inputs.push_back(wpe);
  const auto grads = torch::autograd::grad({out}, inputs, {grad});
  expect_close(grads[0], composite::embed_backward({grad, tokens, c.rows}), name(c, dtype) + " wte",
               4);
  if (with_positions) {
    expect_close(grads[1], composite::embed_positions_backward({grad, c.positions, c.offset}),
                 name(c, dtype) + " wpe", 4);
  }
  EXPECT_TRUE(at::equal(embed_backward(grad, tokens, c.rows), grads[0])) << name(c, dtype);
  return {out, grads[0], with_positions ? grads[1] : at::Tensor()};
}

void all_cases(at::Device device) {
  for (const auto& c : kCases) {
    for (const auto dtype : kTypes) {
      for (const bool positions : {false, true}) {
        run(c, dtype, device, at::kLong, positions);
        run(c, dtype, device, at::kInt, positions);
      }
    }
  }
}

TEST(Embedding, CpuMatchesComposite) { all_cases(at::kCPU); }
TEST(Embedding, CudaMatchesComposite) {
  REFRACT_CUDA_OR_SKIP();
  all_cases(at::kCUDA);
}

TEST(Embedding, CudaMatchesCpuAtTrainingSize) {
  REFRACT_CUDA_OR_SKIP();
  const at::Tensor tokens = at::randint(50257, {8, 1024}, at::TensorOptions().dtype(at::kLong));
  // A third of the batch is one token: its run crosses many tiles.
  tokens.narrow(1, 100, 350).fill_(13);
  const at::Tensor grad = at::randn({8, 1024, 768});
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor g = grad.to(dtype);
    const at::Tensor actual = embed_backward(g.to(at::kCUDA), tokens.to(at::kCUDA), 50304);
    expect_close(actual, embed_backward(g, tokens, 50304).to(at::kCUDA), c10::toString(dtype), 4);
  }
}

TEST(Embedding, GradientsAreThose) {
  const Case c{2, 3, 4, 3, 5, 1};
  const at::Tensor tokens =
      at::randint(c.rows, {c.batch, c.length}, at::TensorOptions().dtype(at::kLong));
  testing::expect_gradients(
      [&](const testing::Tensors& in) -> testing::Tensors {
        return {embed(tokens, in[0], in[1], c.offset)};
      },
      {at::randn({c.rows, c.width}).to(at::kDouble),
       at::randn({c.positions, c.width}).to(at::kDouble)},
      "embed");
}

TEST(Embedding, EmptyAndBad) {
  const at::Tensor wte = at::randn({4, 3});
  const at::Tensor none = at::full({0, 5}, 0, at::TensorOptions().dtype(at::kLong));
  EXPECT_EQ(embed(none, wte).sizes(), at::IntArrayRef({0, 5, 3}));
  EXPECT_EQ(embed_backward(at::randn({0, 5, 3}), none, 4).abs().sum().item<float>(), 0.0f);
  const at::Tensor bad = at::full({1, 2}, 4, at::TensorOptions().dtype(at::kLong));
  EXPECT_THROW(embed(bad, wte), c10::Error);
  EXPECT_THROW(embed(bad.sub(4), wte, at::randn({3, 3}), 2), c10::Error) << "past the positions";
}

TEST(Embedding, CudaBadTokenGivesNaN) {
  REFRACT_CUDA_OR_SKIP();
  const at::Tensor wte = at::randn({4, 8}).to(at::kCUDA);
  const at::Tensor bad = at::full({1, 2}, 4, at::TensorOptions().dtype(at::kLong)).to(at::kCUDA);
  EXPECT_TRUE(embed(bad, wte).isnan().all().item<bool>());
  const at::Tensor grad = at::randn({1, 2, 8}).to(at::kCUDA);
  EXPECT_EQ(embed_backward(grad, bad, 4).abs().sum().item<float>(), 0.0f);
}

}  // namespace dense_embedding_test
}  // namespace refract
