#include "train/step.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "distributed/world.h"
#include "model/backward/layer_gradients.h"
#include "model/backward/recompute.h"
#include "model/frozen_values.h"
#include "ops/dense/optimizer/optimizer.h"
#include "train/repair/teacher.h"
#include "train/schedule.h"
#include "train/state/step_parts.h"
#include "train/together/gradient_sum.h"
#include "train/together/layer_parts.h"
#include "train/together/range_pool.h"
#include "train/update/sliced_update.h"

namespace refract {
namespace {

WindowMix window_order(const RunConfig& config, const TokenStream& stream) {
  const Sampling sampling =
      config.data.sampling == "random" ? Sampling::kRandom : Sampling::kPermutation;
  return {stream, config.data.context, static_cast<uint64_t>(config.order_seed()), sampling};
}

// Where a verified step differs, the processes would have to agree on computing it once more.
void check_verify(const RunConfig& config, bool cuda, int64_t processes) {
  if (config.train.verify == 0) return;
  if (processes > 1)
    fail_usage("train.verify watches the steps of one process; leave it out with {}", processes);
  if (cuda && !config.train.deterministic)
    fail_usage("train.verify compares bits; on a GPU it needs train.deterministic=true");
}

// Runs that are trained side by side, each in a thread and stream of its own, warm up and capture
// in turn: they share autograd's thread, and a capture waits for the whole device.
std::mutex& one_at_a_time() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

TrainStep::TrainStep(Decoder& model, const RunConfig& config, std::shared_ptr<TokenStream> stream,
                     int64_t steps, World* world)
    : model_(model),
      config_(config),
      plan_(config, steps),
      cuda_(model.device().is_cuda() ? cuda_runtime() : nullptr),
      stream_(std::move(stream)),
      order_(window_order(config, *stream_)),
      world_(world ? *world : World::single()),
      share_(share_of_batch(config, world_.rank(), world_.size())),
      micro_batches_(share_.micro_batches()),
      micro_batch_(share_.micro_batch),
      context_(config.data.context) {
  check_verify(config, model.device().is_cuda(), world_.size());
  const auto device = at::TensorOptions().device(model.device());
  const int64_t n = model.arena().trainable_size();
  sum_ = std::make_unique<GradientSum>(share_, world_, model.device(), n,
                                       config.train.shard == "optimizer");
  // Slices are those of all parameters at once, so with divided moments nothing goes ahead.
  if (world_.size() > 1 && !sum_->sharded()) layer_parts_ = layer_parts(model.arena());
  int64_t kept = 0;
  for (const Range& part : parts(/*guided=*/true)) kept += own(part).size();
  state_.exp_avg = at::zeros({kept}, device.dtype(at::kFloat));
  if (config.optimizer.name != "sgd")
    state_.exp_avg_sq = at::zeros({kept}, device.dtype(at::kFloat));
  const bool adds = micro_batches_ > 1 || world_.size() > 1;
  if (adds && model.arena().grads().scalar_type() != at::kFloat) {
    accumulated_ = at::zeros({n}, device.dtype(at::kFloat));
  }
  tokens_ = at::zeros({micro_batches_, micro_batch_, context_ + 1}, device.dtype(at::kInt));
  longs_ = at::zeros({2 * micro_batches_ + 2}, device.dtype(at::kLong));
  floats_ = at::zeros({4}, device.dtype(at::kFloat));
  control_ = at::zeros({4}, device.dtype(at::kFloat));
  history_ = at::zeros({kHistory, 2}, device.dtype(at::kFloat));
  losses_ = at::zeros({share_.groups}, device.dtype(at::kFloat));
  if ((share_.fixed_groups || world_.size() > 1) && !model.buffers().all().empty()) {
    refuse_quantile_ranges(config);
    ranges_ = std::make_unique<RangePool>(model.buffers(), world_);
  }
  for (Staging& staging : staging_) {
    auto host = [this](const at::Tensor& like) {
      return cuda_ ? cuda_->empty_pinned(like.sizes(), like.scalar_type())
                   : at::empty(like.sizes(), at::TensorOptions().dtype(like.scalar_type()));
    };
    staging.tokens = host(tokens_);
    staging.longs = host(longs_);
    staging.floats = host(floats_).zero_();
    if (cuda_) staging.copied = cuda_->event();
  }
}

TrainStep::~TrainStep() = default;

void TrainStep::fill(Staging& staging, int64_t step, int64_t first_sequence) {
  int32_t* tokens = staging.tokens.mutable_data_ptr<int32_t>();
  const int64_t length = context_ + 1;
  for (int64_t i = 0; i < share_.sequences(); ++i) {
    stream_->read(order_.start(first_sequence + share_.first + i),
                  {tokens + i * length, static_cast<size_t>(length)});
  }
  int64_t* longs = staging.longs.mutable_data_ptr<int64_t>();
  for (int64_t m = 0; m < micro_batches_; ++m) {
    longs[2 * m] = step;
    longs[2 * m + 1] = share_.first + m * micro_batch_;
  }
  longs[2 * micro_batches_] = step;
  longs[2 * micro_batches_ + 1] = step % kHistory;
  float* floats = staging.floats.mutable_data_ptr<float>();
  const double t = static_cast<double>(step + 1);
  floats[0] = static_cast<float>(learning_rate(config_, step, plan_.total_steps()));
  floats[1] = static_cast<float>(1 - std::pow(config_.optimizer.betas[0], t));
  floats[2] = static_cast<float>(1 - std::pow(config_.optimizer.betas[1], t));
  floats[3] = static_cast<float>(plan_.alpha(step));
}

void TrainStep::upload(const Staging& staging) {
  tokens_.copy_(staging.tokens, /*non_blocking=*/true);
  longs_.copy_(staging.longs, /*non_blocking=*/true);
  floats_.copy_(staging.floats, /*non_blocking=*/true);
  if (staging.copied) staging.copied->record();
}

bool TrainStep::wants_graph() const { return cuda_ && config_.train.cuda_graph != "off"; }

void TrainStep::run(int64_t step, int64_t first_sequence) {
  if (config_.distill.on() && !teacher_) throw std::logic_error("a distilled run has no teacher");
  if (static_cast<int64_t>(pending_.size()) >= kHistory)
    throw std::logic_error("step records were not taken in time");
  Staging& staging = staging_[static_cast<size_t>(step % kStagingSlots)];
  const bool guided = plan_.guided(step);
  const auto bring_inputs = [&] {
    if (staging.copied) staging.copied->wait();
    fill(staging, step, first_sequence);
    upload(staging);
  };
  if (ranges_ && !started_) {
    bring_inputs();
    model_.set_guide(guided ? floats_.narrow(0, 3, 1) : at::Tensor());
    set_ranges(step, first_sequence);
  }
  const auto compute_it = [&] {
    bring_inputs();
    execute(guided);
  };
  // First: a graph and the launches before it need not choose the same kernels.
  capture_where_due(guided);
  const bool repeats = started_ || config_.train.verify == 0 || ranges_are_set();
  started_ = true;
  if (config_.train.verify > 0 && (step + 1) % config_.train.verify == 0 && repeats) {
    const auto fault = verify_step(step + 1, written(step), compute_it);
    if (fault) faults_.push_back(*fault);
  } else {
    compute_it();
  }
  pending_.push_back(step);
}

// Layers take a range that is not set from the call's own input, and remember that it was set: so
// all are set before a step that every call is to start with the same ones.
void TrainStep::set_ranges(int64_t step, int64_t first_sequence) {
  if (ranges_->all_set()) return;
  const int64_t length = context_ + 1;
  at::Tensor tokens = at::empty({micro_batch_, length}, at::TensorOptions().dtype(at::kInt));
  for (int64_t i = 0; i < micro_batch_; ++i) {
    stream_->read(order_.start(first_sequence + i),
                  {tokens.mutable_data_ptr<int32_t>() + i * length, static_cast<size_t>(length)});
  }
  const at::NoGradGuard no_grad;
  ForwardContext context;
  context.training = true;
  context.seed = static_cast<uint64_t>(config_.noise_seed());
  context.clock = at::tensor({step, int64_t{0}}, at::kLong).to(model_.device());
  tokens = tokens.to(model_.device());
  ranges_->begin_setting();
  model_.hidden(context, tokens.narrow(1, 0, context_).contiguous());
  ranges_->end_setting();
}

void TrainStep::share_state() {
  ParameterArena& arena = model_.arena();
  world_.broadcast_(arena.master());
  world_.broadcast_(frozen_values(arena));
  for (const at::Tensor& flat : {state_.exp_avg, state_.exp_avg_sq}) {
    if (flat.defined() && !sum_->sharded()) world_.broadcast_(flat);
  }
  for (const BufferStore::Buffer& buffer : model_.buffers().all()) world_.broadcast_(buffer.tensor);
  if (world_.size() > 1) arena.refresh_compute();
}

// All that a step writes.
std::vector<StepPart> TrainStep::written(int64_t step) {
  return step_parts(model_, {history_.select(0, step % kHistory), control_, state_.exp_avg,
                             state_.exp_avg_sq, accumulated_});
}

// Where one is not, its layer takes it from the next call and remembers that it was set: that call
// can't be repeated.
bool TrainStep::ranges_are_set() {
  const auto& buffers = model_.buffers().all();
  return std::all_of(buffers.begin(), buffers.end(), [](const BufferStore::Buffer& buffer) {
    return buffer.tensor.isfinite().all().item<bool>();
  });
}

void TrainStep::capture_where_due(bool guided) {
  Variant& variant = variants_[guided ? 1 : 0];
  if (variant.graph || !wants_graph() || variant.eager_steps < kEagerSteps) return;
  const std::lock_guard<std::mutex> lock(one_at_a_time());
  // Never replayed at once and leaving nothing behind, both may lie in the same memory.
  variant.graph =
      cuda_->capture([this, guided] { compute(guided); }, variants_[guided ? 0 : 1].graph.get());
}

void TrainStep::execute(bool guided) {
  Variant& variant = variants_[guided ? 1 : 0];
  if (variant.graph) {
    variant.graph->replay();
  } else if (wants_graph()) {
    const std::lock_guard<std::mutex> lock(one_at_a_time());
    compute(guided);
    ++variant.eager_steps;
    cuda_->synchronize();
  } else {
    compute(guided);
  }
}

// Leaves in `grads` and in losses_ what this process's sequences come to.
void TrainStep::backward_pass(const at::Tensor& grads) {
  const double per_token = 1.0 / static_cast<double>(config_.train.batch * context_);
  const RecomputeScope recompute(recompute_of(config_.train.recompute));
  losses_.zero_();
  sent_.clear();
  const Range all{0, grads.numel()};
  for (int64_t m = 0; m < micro_batches_; ++m) {
    ForwardContext context;
    context.training = true;
    context.seed = static_cast<uint64_t>(config_.noise_seed());
    context.clock = longs_.narrow(0, 2 * m, 2);
    context.weights_changed = m == 0;
    std::optional<LayerGradients> through;
    if (m + 1 == micro_batches_ && !layer_parts_.empty()) {
      through.emplace([this, &grads](int64_t layer) {
        const auto at = static_cast<size_t>(layer);
        if (at < layer_parts_.size() && layer_parts_[at].size() > 0) send(grads, layer_parts_[at]);
      });
    }
    const at::Tensor batch = tokens_.select(0, m);
    const at::Tensor inputs = batch.narrow(1, 0, context_).contiguous(),
                     targets = batch.narrow(1, 1, context_).contiguous();
    const at::Tensor sum = teacher_
                               ? teacher_->loss(model_, context, inputs, targets, config_.distill)
                               : model_.loss(context, inputs, targets).sum;
    const at::Tensor mean = sum.mul(per_token);
    if (mean.requires_grad()) mean.backward();  // not where ranges alone are trained
    losses_.select(0, m / share_.per_group).add_(mean.detach());
    for (const Range& range : without(all, sent_)) take_gradients(grads, range, m);
    if (ranges_) ranges_->after_call();
  }
}

void TrainStep::take_gradients(const at::Tensor& grads, const Range& range, int64_t micro_batch) {
  const at::Tensor part = grads.narrow(0, range.begin, range.size());
  if (accumulated_.defined())
    accumulate_(part, model_.arena().grads().narrow(0, range.begin, range.size()));
  if ((micro_batch + 1) % share_.per_group == 0)
    sum_->add_group(micro_batch / share_.per_group, part, range.begin);
}

void TrainStep::send(const at::Tensor& grads, const Range& range) {
  take_gradients(grads, range, micro_batches_ - 1);
  world_.run_beside([&] { sum_->add_processes(grads.narrow(0, range.begin, range.size())); });
  sent_.push_back(range);
}

void TrainStep::compute(bool guided) {
  ParameterArena& arena = model_.arena();
  model_.set_guide(guided ? floats_.narrow(0, 3, 1) : at::Tensor());
  // Without guides their gradients stay zero, as the optimizer left them.
  const at::Tensor grads = (accumulated_.defined() ? accumulated_ : arena.grads())
                               .narrow(0, 0, guided ? arena.trainable_size() : arena.core_size());
  if (ranges_) ranges_->begin_step();
  backward_pass(grads);
  std::vector<at::Tensor> summed;
  for (const Range& part : parts(guided)) {
    summed.push_back(grads.narrow(0, part.begin, part.size()));
    for (const Range& rest : without(part, sent_)) {
      world_.run_beside([&] { sum_->add_processes(grads.narrow(0, rest.begin, rest.size())); });
    }
  }
  world_.wait_beside();
  const at::Tensor loss = sum_->add_losses(losses_);
  if (ranges_) ranges_->end_step();
  const bool by_units = share_.fixed_groups || sum_->sharded();
  const at::Tensor norm = by_units ? sum_->norm(summed) : global_norm(grads);
  const at::Tensor step = longs_.narrow(0, 2 * micro_batches_, 1);
  step_control_(control_, norm, loss, config_.optimizer.clip, step);
  history_.index_copy_(0, longs_.narrow(0, 2 * micro_batches_ + 1, 1),
                       at::stack({loss, norm}).unsqueeze(0));
  for (const Range& part : parts(guided)) optimize(grads, part);
  if (sum_->sharded()) grads.zero_();  // the slices of others too
}

std::vector<Range> TrainStep::parts(bool guided) const {
  const ParameterArena& arena = model_.arena();
  std::vector<Range> all = {{0, arena.core_size()}};
  if (guided && arena.has_guides()) all.push_back({arena.core_size(), arena.trainable_size()});
  return all;
}

Range TrainStep::own(const Range& part) const {
  if (!sum_->sharded()) return part;
  const Range slice = sum_->slices(part.size()).of(world_.rank());
  return {part.begin + slice.begin, part.begin + slice.end};
}

int64_t TrainStep::place_in_state(const Range& part) const {
  return part.begin == 0 ? 0 : own({0, part.begin}).size();
}

void TrainStep::optimize(const at::Tensor& grads, const Range& part) {
  ParameterArena& arena = model_.arena();
  const UpdateInputs in{own(part), place_in_state(part), grads, state_, floats_, control_};
  if (!sum_->sharded()) return update_weights(arena, config_.optimizer, in);
  update_slice(arena, config_.optimizer, in, part,
               [this](const at::Tensor& flat) { sum_->gather(flat); });
  const at::Tensor weights = arena.master().narrow(0, part.begin, part.size());
  sum_->gather(weights);
  if (!arena.compute().is_same(arena.master()))
    arena.compute().narrow(0, part.begin, part.size()).copy_(weights);
}

OptimizerState TrainStep::blank_state() const {
  if (!sum_->sharded()) return state_;
  OptimizerState whole;
  whole.exp_avg = at::zeros({model_.arena().trainable_size()});
  if (state_.exp_avg_sq.defined()) whole.exp_avg_sq = at::zeros_like(whole.exp_avg);
  return whole;
}

void TrainStep::take_state(const OptimizerState& whole) {
  if (!sum_->sharded()) return;  // it was written where it is kept
  for (const Range& part : parts(/*guided=*/true)) {
    const Range range = own(part);
    for (const auto& [to, from] : {std::pair(state_.exp_avg, whole.exp_avg),
                                   std::pair(state_.exp_avg_sq, whole.exp_avg_sq)}) {
      if (!to.defined()) continue;
      to.narrow(0, place_in_state(part), range.size())
          .copy_(from.narrow(0, range.begin, range.size()));
    }
  }
}

OptimizerState TrainStep::whole_state() {
  if (!sum_->sharded()) return state_;
  const auto gathered = [this](const at::Tensor& flat) {
    std::vector<at::Tensor> all;
    for (const Range& part : parts(/*guided=*/true)) {
      const at::Tensor kept = flat.narrow(0, place_in_state(part), own(part).size());
      const at::Tensor host = sum_->gathered_on_host(kept, part.size());
      if (host.defined()) all.push_back(host);
    }
    return all.empty() ? at::Tensor() : at::cat(all);
  };
  OptimizerState whole;
  whole.exp_avg = gathered(state_.exp_avg);
  if (state_.exp_avg_sq.defined()) whole.exp_avg_sq = gathered(state_.exp_avg_sq);
  return whole;
}

void TrainStep::drop_guides() {
  ParameterArena& arena = model_.arena();
  if (!arena.has_guides()) return;
  variants_ = {};  // what was captured reads the old buffers
  model_.set_guide({});
  arena.drop_guides();
  const int64_t kept = own({0, arena.core_size()}).size();
  for (at::Tensor* flat : {&state_.exp_avg, &state_.exp_avg_sq}) {
    if (flat->defined()) *flat = flat->narrow(0, 0, kept).clone();
  }
  if (accumulated_.defined()) accumulated_ = accumulated_.narrow(0, 0, arena.core_size()).clone();
  sum_->shrink(arena.core_size());
  if (cuda_) cuda_->empty_cache();
}

at::Tensor TrainStep::guide_share(int64_t step) {
  if (!model_.arena().has_guides()) return {};
  return floats_.narrow(0, 3, 1).fill_(plan_.alpha(step));
}

std::vector<StepRecord> TrainStep::take_records(std::optional<int64_t>& bad_step) {
  const at::Tensor history = history_.cpu(), control = control_.cpu();
  const float* values = history.const_data_ptr<float>();
  std::vector<StepRecord> records;
  for (int64_t step : pending_) {
    const float* row = values + 2 * (step % kHistory);
    records.push_back({step, row[0], row[1]});
  }
  pending_.clear();
  bad_step.reset();
  const float* flags = control.const_data_ptr<float>();
  if (flags[1] != 0) bad_step = static_cast<int64_t>(flags[2]);
  return records;
}

}  // namespace refract
