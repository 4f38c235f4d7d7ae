#include "train/step.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <mutex>

#include "core/error.h"
#include "ops/common/op.h"
#include "ops/dense/optimizer/optimizer.h"
#include "ops/dense/optimizer/sgd.h"
#include "train/repair/teacher.h"
#include "train/schedule.h"

namespace refract {
namespace {

WindowOrder window_order(const RunConfig& config, int64_t tokens) {
  const Sampling sampling =
      config.data.sampling == "random" ? Sampling::kRandom : Sampling::kPermutation;
  return {tokens, config.data.context, static_cast<uint64_t>(config.order_seed()), sampling};
}

AdamW adamw_settings(const RunConfig::Optimizer& o, int64_t n_decay) {
  AdamW settings;
  settings.beta1 = o.betas[0];
  settings.beta2 = o.betas[1];
  settings.eps = o.eps;
  settings.weight_decay = o.name == "adam" ? 0 : o.weight_decay;
  settings.n_decay = n_decay;
  settings.zero_grads = true;
  return settings;
}

Sgd sgd_settings(const RunConfig::Optimizer& o, int64_t n_decay) {
  Sgd settings;
  settings.momentum = o.momentum;
  settings.weight_decay = o.weight_decay;
  settings.n_decay = n_decay;
  settings.nesterov = o.nesterov;
  settings.zero_grads = true;
  return settings;
}

}  // namespace

TrainStep::TrainStep(Decoder& model, const RunConfig& config, std::shared_ptr<TokenStream> stream,
                     int64_t steps)
    : model_(model),
      config_(config),
      plan_(config, steps),
      cuda_(model.device().is_cuda() ? cuda_runtime() : nullptr),
      stream_(std::move(stream)),
      order_(window_order(config, stream_->size())),
      micro_batch_(config.train.micro_batch > 0 ? config.train.micro_batch : config.train.batch),
      context_(config.data.context) {
  micro_batches_ = config.train.batch / micro_batch_;
  const auto device = at::TensorOptions().device(model.device());
  const int64_t n = model.arena().trainable_size();
  state_.exp_avg = at::zeros({n}, device.dtype(at::kFloat));
  if (config.optimizer.name != "sgd") state_.exp_avg_sq = at::zeros({n}, device.dtype(at::kFloat));
  if (micro_batches_ > 1 && model.arena().grads().scalar_type() != at::kFloat) {
    accumulated_ = at::zeros({n}, device.dtype(at::kFloat));
  }
  tokens_ = at::zeros({micro_batches_, micro_batch_, context_ + 1}, device.dtype(at::kInt));
  longs_ = at::zeros({2 * micro_batches_ + 2}, device.dtype(at::kLong));
  floats_ = at::zeros({4}, device.dtype(at::kFloat));
  control_ = at::zeros({4}, device.dtype(at::kFloat));
  history_ = at::zeros({kHistory, 2}, device.dtype(at::kFloat));
  loss_ = at::zeros({}, device.dtype(at::kFloat));
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
  for (int64_t i = 0; i < config_.train.batch; ++i) {
    stream_->read(order_.start(first_sequence + i),
                  {tokens + i * length, static_cast<size_t>(length)});
  }
  int64_t* longs = staging.longs.mutable_data_ptr<int64_t>();
  for (int64_t m = 0; m < micro_batches_; ++m) {
    longs[2 * m] = step;
    longs[2 * m + 1] = m * micro_batch_;
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
  if (staging.copied) staging.copied->wait();
  fill(staging, step, first_sequence);
  upload(staging);
  const bool guided = plan_.guided(step);
  const Variant& variant = variants_[guided ? 1 : 0];
  if (variant.graph) {
    variant.graph->replay();
  } else if (wants_graph()) {
    warm_up_or_capture(guided);
  } else {
    compute(guided);
  }
  pending_.push_back(step);
}

// Runs that are trained side by side, each in a thread and stream of its own, do this in turn: they
// share autograd's thread, and a capture waits for the whole device.
void TrainStep::warm_up_or_capture(bool guided) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  Variant& variant = variants_[guided ? 1 : 0];
  if (variant.eager_steps < kEagerSteps) {
    compute(guided);
    ++variant.eager_steps;
    cuda_->synchronize();
    return;
  }
  // Never replayed at once and leaving nothing behind, both may lie in the same memory.
  variant.graph =
      cuda_->capture([this, guided] { compute(guided); }, variants_[guided ? 0 : 1].graph.get());
  variant.graph->replay();
}

void TrainStep::compute(bool guided) {
  ParameterArena& arena = model_.arena();
  const double per_token = 1.0 / static_cast<double>(config_.train.batch * context_);
  // Without guides their gradients stay zero, as the optimizer left them.
  const int64_t size = guided ? arena.trainable_size() : arena.core_size();
  const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, 0, size); };
  model_.set_guide(guided ? floats_.narrow(0, 3, 1) : at::Tensor());
  loss_.zero_();
  for (int64_t m = 0; m < micro_batches_; ++m) {
    ForwardContext context;
    context.training = true;
    context.seed = static_cast<uint64_t>(config_.noise_seed());
    context.clock = longs_.narrow(0, 2 * m, 2);
    context.weights_changed = m == 0;
    const at::Tensor batch = tokens_.select(0, m);
    const at::Tensor inputs = batch.narrow(1, 0, context_).contiguous(),
                     targets = batch.narrow(1, 1, context_).contiguous();
    const at::Tensor sum = teacher_
                               ? teacher_->loss(model_, context, inputs, targets, config_.distill)
                               : model_.loss(context, inputs, targets).sum;
    const at::Tensor mean = sum.mul(per_token);
    if (mean.requires_grad()) mean.backward();  // not where ranges alone are trained
    loss_.add_(mean.detach());
    if (accumulated_.defined()) accumulate_(part(accumulated_), part(arena.grads()));
  }
  const at::Tensor grads = accumulated_.defined() ? accumulated_ : arena.grads();
  const at::Tensor norm = global_norm(part(grads));
  const at::Tensor step = longs_.narrow(0, 2 * micro_batches_, 1);
  step_control_(control_, norm, loss_, config_.optimizer.clip, step);
  history_.index_copy_(0, longs_.narrow(0, 2 * micro_batches_ + 1, 1),
                       at::stack({loss_, norm}).unsqueeze(0));
  optimize(grads, 0, arena.core_size());
  if (guided) optimize(grads, arena.core_size(), arena.trainable_size());
}

// The elements [begin, end) of the trainable part: the model's own, matrices first, or the guides,
// which are matrices.
void TrainStep::optimize(const at::Tensor& grads, int64_t begin, int64_t end) {
  if (begin == end) return;
  ParameterArena& arena = model_.arena();
  const RunConfig::Optimizer& o = config_.optimizer;
  const bool all = o.decay == "all" || begin >= arena.core_size();
  const int64_t n_decay = all ? end - begin : arena.matrix_size();
  const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, begin, end - begin); };
  const bool same = arena.compute().is_same(arena.master());
  const auto compute = optional_of(same ? at::Tensor() : part(arena.compute()));
  if (o.name == "sgd") {
    sgd_(part(arena.master()), compute, part(grads), part(state_.exp_avg), floats_, control_,
         sgd_settings(o, n_decay));
  } else {
    adamw_(part(arena.master()), compute, part(grads), part(state_.exp_avg),
           part(state_.exp_avg_sq), floats_, control_, adamw_settings(o, n_decay));
  }
}

void TrainStep::drop_guides() {
  ParameterArena& arena = model_.arena();
  if (!arena.has_guides()) return;
  variants_ = {};  // what was captured reads the old buffers
  model_.set_guide({});
  arena.drop_guides();
  for (at::Tensor* flat : {&state_.exp_avg, &state_.exp_avg_sq, &accumulated_}) {
    if (flat->defined()) *flat = flat->narrow(0, 0, arena.core_size()).clone();
  }
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
