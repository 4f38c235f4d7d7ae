// The training loop: steps, log points, evaluations, samples, checkpoints, stopping and resuming.
#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "data/dataset.h"
#include "formats/carried.h"
#include "model/decoder.h"
#include "train/checkpoints/background_save.h"
#include "train/checkpoints/checkpoints.h"
#include "train/evaluate.h"
#include "train/run_config.h"

namespace refract {

// Figures of a log point, over the steps since the one before.
struct LogPoint {
  int64_t step = 0;          // optimizer steps done
  double loss = 0;           // of the last of them
  double mean_loss = 0;      // over them
  double grad_norm = 0;      // of the last, before clipping
  double learning_rate = 0;  // of the last
  double step_ms = 0;        // mean wall time, without evaluation and checkpoints
  double tokens_per_second = 0;
  double guided_share = 0;  // of the steps, those that computed the guides (self-guided training)
  double memory_bytes =
      0;  // peak of the device's allocator, or the process's resident memory on the CPU
  int64_t tokens = 0;  // trained on so far
};

// Receives what happens; reporting hangs off this and nothing in the loop knows of files or
// terminals.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_step(int64_t /*step*/) {}
  virtual void on_log(const LogPoint&) {}
  virtual void on_evaluation(int64_t /*step*/, const Evaluation&) {}
  virtual void on_sample(int64_t /*step*/, const std::string& /*text*/) {}
  virtual void on_checkpoint(int64_t /*step*/, const std::filesystem::path&) {}
  // A step whose loss or gradient is not finite; the run ends after it.
  virtual void on_bad_step(const StepRecord&) {}
};

struct RunResult {
  int64_t step = 0;
  bool finished = false;  // false: stopped by a signal, checkpoint written
  int signal = 0;
  std::optional<Evaluation> evaluation;  // of the last evaluation
  // Of the last step; NaN where none was made.
  double loss = std::numeric_limits<double>::quiet_NaN();
};

class World;

class Trainer {
 public:
  // The model is allocated and holds its starting weights. `steps`: the whole run, or with
  // self_guided.mode = "fixedflop" its steps on fresh data. `world`: the processes that train it
  // together, of which process 0 samples and saves; null: this one alone.
  Trainer(RunConfig config, Decoder& model, Dataset data, int64_t steps, Observer& observer,
          World* world = nullptr);

  // Takes what checkpoints keep of the folder that the model came from.
  void carry(Carried carried) { carried_ = std::move(carried); }

  // The model that is learned from where distill.weight is set; it outlives the trainer.
  void set_teacher(Teacher* teacher) { step_.set_teacher(teacher); }

  // Goes on from the newest complete checkpoint of the run folder; returns its step, or none where
  // there is none.
  std::optional<int64_t> resume();
  // The same from one of its checkpoints that need not be the newest.
  void resume_at(int64_t step);
  // Goes on from a checkpoint of another run with that run's weights, moments, step and place in
  // the data, but under this run's own seeds.
  void branch(const Checkpoints& from, int64_t step);
  // The step that the next run() starts with.
  int64_t position() const { return position_.step; }
  bool captured() const { return step_.captured(); }

  // To the end, or to `until` steps, where a checkpoint is written and the run may be resumed.
  RunResult run(std::optional<int64_t> until = std::nullopt);

  // Sampled texts with the run's settings.
  std::string sample(int64_t index);

 private:
  void log_point();
  void restart_clock();
  bool is_permanent() const;
  void evaluate_now();
  void check_weights();
  void save();
  // Tells of what was saved in the background; `wait`: after it is done.
  void announce_saved(bool wait);
  TrainPosition load(const Checkpoints& from, int64_t step);
  bool due(int64_t every) const { return every > 0 && position_.step % every == 0; }
  // The place in the data order of a step's first sequence.
  int64_t first_sequence(int64_t step) const;
  [[noreturn]] void stop_at_bad_step(int64_t bad_step);

  RunConfig config_;
  Decoder& model_;
  Dataset data_;
  Observer& observer_;
  World& world_;
  Carried carried_;
  Checkpoints checkpoints_;
  TrainStep step_;
  int64_t steps_;  // in all
  TrainPosition position_;
  RunResult result_;
  double clock_ = 0;                                  // when the steps that are being timed began
  int64_t timed_steps_ = 0, timed_guided_steps_ = 0;  // since then
  int64_t saved_at_ = -1, evaluated_at_ = -1;
  std::unique_ptr<BackgroundSave> background_;  // null: saves are waited for. Ends first
};

}  // namespace refract
