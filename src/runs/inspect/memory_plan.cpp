#include "runs/inspect/memory_plan.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>

#include "model/backward/recompute.h"
#include "ops/dense/loss/cross_entropy.h"
#include "runs/device.h"
#include "runs/inspect/shape_forms.h"
#include "runs/inspect/tensor_meter.h"
#include "train/repair/train_only.h"
#include "train/together/batch_share.h"
#include "train/together/gradient_sum.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

// cuBLAS takes it from the allocator, on GPUs of Hopper's kind.
constexpr double kLibraryWorkspace = 32.0 * 1024 * 1024;

// The chunk of logits that the loss holds (ops/dense/loss/cross_entropy_cuda.cpp), and one number
// of each kind per row.
int64_t scratch_of(const at::RecordFunction& op) {
  if (std::strcmp(op.name(), "refract::linear_cross_entropy_forward") != 0) return 0;
  const at::Tensor &x = op.inputs()[0].toTensor(), &weight = op.inputs()[1].toTensor();
  const int64_t rows = x.numel() / x.size(-1), width = (weight.size(0) + 7) / 8 * 8;
  const int64_t row_bytes = width * static_cast<int64_t>(x.element_size());
  const int64_t chunk = cross_entropy::chunk_rows(rows, row_bytes, cross_entropy::kChunkBytes);
  return std::min(rows, chunk) * row_bytes + rows * 8;
}

// As it is trained. Documents that are kept apart are counted as if they were joined.
std::unique_ptr<Decoder> planned(const RunConfig& config) {
  std::unique_ptr<Decoder> model =
      build_model(config.model, config.transform, "inspect", config.self_guided.mode != "none")
          .decoder;
  train_only(*model, config.only, "inspect");
  return model;
}

// With the guides, which are there at the beginning of a run.
int64_t elements(const ParameterArena& arena, bool trained) {
  int64_t n = trained ? arena.trainable_count() : arena.count();
  for (const Parameter& guide : arena.guides()) n += guide.numel();
  return n;
}

void add_state(MemoryPlan& plan, const RunConfig& config, const ParameterArena& arena,
               int64_t processes) {
  const auto n = static_cast<double>(elements(arena, /*trained=*/false)),
             trained = static_cast<double>(elements(arena, /*trained=*/true));
  const BatchShare share = share_of_batch(config, 0, processes);
  const bool half = config.train.precision == "bf16", several = processes > 1;
  const bool sharded = several && config.train.shard == "optimizer";
  const double compute = half ? 2 : 4;
  plan.weights = compute * n + (half ? 4 * trained : 0);
  plan.gradients = compute * trained;
  plan.moments = (config.optimizer.name == "sgd" ? 4 : 8) * trained /
                 (sharded ? static_cast<double>(processes) : 1);
  if (half && (share.micro_batches() > 1 || several)) plan.sums += 4 * trained;
  for (int64_t groups = 1; groups < share.groups; groups *= 2) plan.sums += 4 * trained;
  if (several && (sharded || share.fixed_groups))
    plan.exchange = 2 * 4 * std::min(trained, static_cast<double>(kExchangeBuffer));
}

std::vector<at::Tensor> state_of(Decoder& model) {
  const ParameterArena& arena = model.arena();
  std::vector<at::Tensor> all = {arena.master(), arena.compute(), arena.grads()};
  for (const BufferStore::Buffer& buffer : model.buffers().all()) all.push_back(buffer.tensor);
  return all;
}

CallMemory run_call(Decoder& model, const RunConfig& config, int64_t micro_batch) {
  const auto whole = at::TensorOptions().device(at::kMeta).dtype(at::kLong);
  ForwardContext context;
  context.training = true;
  context.clock = at::empty({2}, whole);
  if (model.arena().has_guides()) model.set_guide(at::empty({1}, whole.dtype(at::kFloat)));
  const at::Tensor tokens = at::empty({micro_batch, config.data.context}, whole.dtype(at::kInt)),
                   targets = at::empty_like(tokens);
  const at::AutoGradMode with_gradients(true);
  const RecomputeScope scope(recompute_of(config.train.recompute));
  TensorMeter meter(state_of(model), scratch_of);
  CallMemory memory;
  const at::Tensor loss = model.loss(context, tokens, targets).sum;
  memory.kept = static_cast<double>(meter.live());
  if (loss.requires_grad()) loss.backward();
  memory.most = static_cast<double>(meter.most());
  return memory;
}

}  // namespace

std::optional<double> MemoryPlan::peak() const {
  if (!call) return std::nullopt;
  return state() + call->most + libraries;
}

std::optional<CallMemory> measure_call(const RunConfig& config, int64_t micro_batch) {
  const std::unique_ptr<Decoder> model = planned(config);
  add_shape_forms();
  try {
    model->allocate(at::kMeta, compute_dtype(config));
    return run_call(*model, config, micro_batch);
  } catch (const std::exception&) {  // a kind that looks at numbers
    return std::nullopt;
  }
}

MemoryPlan plan_memory(const RunConfig& config, int64_t processes) {
  MemoryPlan plan;
  add_state(plan, config, planned(config)->arena(), processes);
  plan.call = measure_call(config, share_of_batch(config, 0, processes).micro_batch);
  if (config.train.device != "cpu") plan.libraries = kLibraryWorkspace;
  return plan;
}

}  // namespace refract
