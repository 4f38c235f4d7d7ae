#include "train/trainer.h"

#include <ATen/ops/aminmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "decode/generate.h"
#include "decode/text_stream.h"
#include "distributed/world.h"
#include "formats/checkpoint.h"
#include "formats/start_token.h"
#include "model/frozen_values.h"
#include "train/batch_count.h"
#include "train/memory.h"
#include "train/repair/train_only.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

// No copy is made of them, and a NaN or an infinity anywhere shows in one of the two.
bool are_finite(const at::Tensor& values) {
  if (values.numel() == 0) return true;
  const auto [least, most] = at::aminmax(values);
  return std::isfinite(least.item<double>()) && std::isfinite(most.item<double>());
}

bool weights_are_finite(const ParameterArena& arena) {
  return are_finite(arena.master()) && are_finite(frozen_values(arena));
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string last_good(const Checkpoints& checkpoints) {
  const std::optional<int64_t> good = checkpoints.newest();
  return good ? fmt::format("The last good checkpoint is '{}'.", checkpoints.path(*good).string())
              : "There is no checkpoint yet.";
}

}  // namespace

Trainer::Trainer(RunConfig config, Decoder& model, Dataset data, int64_t steps, Observer& observer,
                 World* world)
    : config_(std::move(config)),
      model_(model),
      data_(std::move(data)),
      observer_(observer),
      world_(world ? *world : World::single()),
      checkpoints_(config_.run.dir),
      step_(model, config_, data_.train, steps, world),
      steps_(step_.plan().total_steps()) {
  position_.seed = config_.run.seed;
  position_.order_seed = config_.order_seed();
  position_.noise_seed = config_.noise_seed();
  if (config_.train.save != "async" || !world_.leader()) return;
  auto copy = build_model(config_.model, config_.transform, "train.save",
                          config_.self_guided.mode != "none")
                  .decoder;
  train_only(*copy, config_.only, "train.save");  // so that its arena is laid out alike
  copy->allocate(at::kCPU, model_.arena().compute().scalar_type());
  background_ = std::make_unique<BackgroundSave>(std::move(copy));
}

std::optional<int64_t> Trainer::resume() {
  const std::optional<int64_t> newest = checkpoints_.newest();
  if (newest) resume_at(*newest);
  return newest;
}

void Trainer::resume_at(int64_t step) {
  const TrainPosition own = position_;
  // A checkpoint from after the guided steps holds no guides.
  if (checkpoints_.position(step).step >= step_.plan().guided_steps()) step_.drop_guides();
  position_ = load(checkpoints_, step);
  const auto require = [](const char* key, int64_t saved, int64_t wanted) {
    if (saved == wanted) return;
    fail_usage("the run was started with {} = {}, not {}; resume it with its own seed", key, saved,
               wanted);
  };
  require("run.seed", position_.seed, own.seed);
  require("data.order_seed", position_.order_seed, own.order_seed);
  require("run.noise_seed", position_.noise_seed, own.noise_seed);
  if (config_.self_guided.mode == "fixedflop" &&
      position_.sequences != position_.step * config_.train.batch) {
    fail_usage(
        "the run trained on {} sequences in {} steps, not {} in each; self_guided.mode = "
        "\"fixedflop\" repeats the data of its first steps, so resume it with its own "
        "train.batch",
        position_.sequences, position_.step, config_.train.batch);
  }
  saved_at_ = evaluated_at_ = position_.step;
}

TrainPosition Trainer::load(const Checkpoints& from, int64_t step) {
  OptimizerState state = step_.blank_state();
  const TrainPosition position = from.load(step, model_, state);
  step_.take_state(state);
  return position;
}

void Trainer::branch(const Checkpoints& from, int64_t step) {
  if (from.position(step).step >= step_.plan().guided_steps()) step_.drop_guides();
  const TrainPosition trunk = load(from, step);
  position_.step = trunk.step;
  position_.sequences = trunk.sequences;
  evaluated_at_ = trunk.step;
}

RunResult Trainer::run(std::optional<int64_t> until) {
  StopSignals signals;
  const int64_t end = std::min(until.value_or(steps_), steps_);
  step_.share_state();
  if (world_.leader()) checkpoints_.remove_unfinished();
  if (position_.step == 0) evaluate_now();
  restart_clock();
  while (position_.step < end) {
    step_.run(position_.step, first_sequence(position_.step));
    timed_guided_steps_ += step_.plan().guided(position_.step) ? 1 : 0;
    position_.step += 1;
    position_.sequences += config_.train.batch;
    if (position_.step == step_.plan().guided_steps()) step_.drop_guides();
    timed_steps_ += 1;
    observer_.on_step(position_.step);
    announce_saved(false);
    const bool last = position_.step == steps_;
    const bool stopping = world_.stops_after(position_.step, StopSignals::received() != 0);
    const bool evaluating = last || (due(config_.eval.every) && !stopping);
    const bool saving =
        position_.step == end || stopping || is_permanent() || due(config_.checkpoint.every);
    if (due(config_.log.every) || evaluating || saving || timed_steps_ == step_.capacity()) {
      log_point();  // waits for the device; a bad step is found before anything is evaluated or
                    // saved
    }
    if (evaluating || saving) check_weights();
    if (evaluating) evaluate_now();
    if (saving) save();
    if (evaluating || saving) restart_clock();
    if (stopping && !last) break;
  }
  announce_saved(true);
  result_.step = position_.step;
  result_.finished = position_.step >= steps_;
  result_.signal = StopSignals::received();
  return result_;
}

bool Trainer::is_permanent() const {
  const std::vector<int64_t>& steps = config_.checkpoint.permanent;
  return std::find(steps.begin(), steps.end(), position_.step) != steps.end();
}

// A step with a finite loss and gradient may still make weights that are not, and nothing tells
// before the next one. Such weights are never saved, so every checkpoint is a good one.
void Trainer::check_weights() {
  if (weights_are_finite(model_.arena())) return;
  announce_saved(true);
  fail(
      "the weights are not finite after step {}; they are not saved. {} A smaller optimizer.lr or "
      "optimizer.clip may help",
      position_.step, last_good(checkpoints_));
}

void Trainer::restart_clock() {
  clock_ = seconds_now();
  timed_steps_ = timed_guided_steps_ = 0;
}

void Trainer::log_point() {
  std::optional<int64_t> bad_step;
  const std::vector<StepRecord> records = step_.take_records(bad_step);
  if (bad_step) {
    for (const StepRecord& record : records) {
      if (record.step == *bad_step) observer_.on_bad_step(record);
    }
    stop_at_bad_step(*bad_step);
  }
  if (records.empty()) return;
  const double seconds = seconds_now() - clock_;
  LogPoint point;
  point.step = position_.step;
  for (const StepRecord& record : records)
    point.mean_loss += record.loss / static_cast<double>(records.size());
  point.loss = records.back().loss;
  point.grad_norm = records.back().grad_norm;
  point.learning_rate = learning_rate(config_, records.back().step, steps_);
  const auto timed = static_cast<double>(std::max<int64_t>(1, timed_steps_));
  point.step_ms = 1e3 * seconds / timed;
  point.guided_share = static_cast<double>(timed_guided_steps_) / timed;
  point.tokens_per_second =
      static_cast<double>(config_.train.batch * config_.data.context) * 1e3 / point.step_ms;
  point.memory_bytes = peak_memory(model_.device());
  point.tokens = position_.sequences * config_.data.context;
  result_.loss = point.loss;
  observer_.on_log(point);
  restart_clock();
}

int64_t Trainer::first_sequence(int64_t step) const {
  const int64_t back = position_.step - step_.plan().data_step(step);
  return position_.sequences - back * config_.train.batch;
}

void Trainer::stop_at_bad_step(int64_t bad_step) {
  const int64_t first = first_sequence(bad_step);
  announce_saved(true);
  fail(
      "the loss or its gradient is not finite in step {} (sequences {} to {} of the data order, "
      "the first window at token {}); "
      "the weights were left as they were before it. {} A smaller optimizer.lr or optimizer.clip "
      "may help",
      bad_step + 1, first, first + config_.train.batch - 1, step_.order().start(first),
      last_good(checkpoints_));
}

void Trainer::evaluate_now() {
  if (evaluated_at_ == position_.step) return;
  evaluated_at_ = position_.step;
  model_.set_guide(step_.guide_share(position_.step));
  if (data_.validation && data_.validation->size() > 1) {
    const int64_t windows = batch_count(config_.eval.batches, "eval.batches") * config_.train.batch;
    result_.evaluation =
        evaluate(model_, *data_.validation, config_.data.context, windows, {}, &world_);
    observer_.on_evaluation(position_.step, *result_.evaluation);
  }
  if (!data_.tokenizer || !world_.leader()) return;
  for (int64_t i = 0; i < config_.eval.samples; ++i) observer_.on_sample(position_.step, sample(i));
}

std::string Trainer::sample(int64_t index) {
  SamplingOptions options;
  options.max_tokens = config_.eval.sample_tokens;
  options.temperature = config_.eval.temperature;
  options.seed = static_cast<uint64_t>(config_.run.seed + index);
  options.stop = stop_tokens(carried_, *data_.tokenizer);
  const std::vector<TokenId> prompt =
      prompt_tokens(*data_.tokenizer, config_.eval.prompt, start_token(carried_, *data_.tokenizer));
  return config_.eval.prompt +
         continuation(*data_.tokenizer, prompt, generate(model_, prompt, options));
}

// What a thread writes must not change meanwhile: its place in the run is its own.
void Trainer::save() {
  if (saved_at_ == position_.step) return;
  saved_at_ = position_.step;
  announce_saved(true);
  const OptimizerState whole = step_.whole_state();
  const auto write = [this, position = position_](Decoder& model, const OptimizerState& state) {
    SaveOptions options;
    if (data_.tokenizer) options.ids = ids_of(*data_.tokenizer);
    options.carried = carried_;
    std::filesystem::path path = checkpoints_.save(
        model, state, position,
        [this](const std::filesystem::path& folder) {
          if (data_.tokenizer) data_.tokenizer->save(folder);
          write_file_atomically(folder / "config.toml", to_toml(config_));
        },
        options);
    checkpoints_.prune(config_.checkpoint.keep, config_.checkpoint.permanent);
    return path;
  };
  if (config_.train.save == "async") {  // process 0 has one to write, and nobody waits for it
    if (background_) background_->start(position_.step, model_, whole, write);
    return;
  }
  world_.leader_alone([&] { observer_.on_checkpoint(position_.step, write(model_, whole)); });
}

void Trainer::announce_saved(bool wait) {
  if (!background_) return;
  if (const auto saved = background_->take(wait))
    observer_.on_checkpoint(saved->step, saved->folder);
}

}  // namespace refract
