// One optimizer step: micro-batches, clipping, optimizer; on CUDA captured as one graph.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/mix/mixture.h"
#include "data/tokens.h"
#include "model/decoder.h"
#include "ops/common/cuda_runtime.h"
#include "train/run_config.h"
#include "train/self_guided.h"
#include "train/state/step_check.h"
#include "train/together/batch_share.h"
#include "train/together/slices.h"
#include "train/update/weight_update.h"

namespace refract {

class GradientSum;
class RangePool;
class Teacher;
class World;

// What the device remembered of one step.
struct StepRecord {
  int64_t step = 0;
  double loss = 0;       // mean over the step's tokens, nats
  double grad_norm = 0;  // before clipping
};

class TrainStep {
 public:
  // `order` gives the windows of `stream`; `first_sequence` is the global number of the next
  // sequence to train on. `steps` are those on fresh data (self_guided.h). `world`: the processes
  // that share each step's batch; null: this one alone.
  TrainStep(Decoder& model, const RunConfig& config, std::shared_ptr<TokenStream> stream,
            int64_t steps, World* world = nullptr);
  ~TrainStep();

  // The model that is learned from where distill.weight is set, before the first step; it outlives
  // this.
  void set_teacher(Teacher* teacher) { teacher_ = teacher; }

  // Runs the 0-based `step` on the sequences from `first_sequence` on. On CUDA it returns before
  // the work is done. With train.verify every so many steps are computed twice, which waits for the
  // device; where the results differ the step is computed a third time, a warning says what was
  // wrong, and an Error that no two of the three agree.
  void run(int64_t step, int64_t first_sequence);

  // Weights, moments and ranges of process 0 for all processes.
  void share_state();

  // Waits for the device and hands over the records since the last call, oldest first. If a step's
  // loss or gradient was not finite, `bad_step` is it: that step and those after it changed
  // nothing.
  std::vector<StepRecord> take_records(std::optional<int64_t>& bad_step);
  // How many records fit before they must be taken.
  int64_t capacity() const { return kHistory; }

  const SelfGuidedPlan& plan() const { return plan_; }
  // Frees the guides, their moments and what was captured with them. Does nothing where there are
  // none.
  void drop_guides();
  // The guides' share for forward passes outside of training at the 0-based `step`; undefined where
  // there are no guides. Good until the next step runs.
  at::Tensor guide_share(int64_t step);

  // Steps whose computation did not repeat (train.verify), each in one sentence.
  const std::vector<std::string>& faults() const { return faults_; }

  OptimizerState& state() { return state_; }
  // All of it: this process's own, or where it is divided what all processes keep, on the host of
  // process 0. All call it.
  OptimizerState whole_state();
  // Memory for all of it, and taking it from there: this process's own, or its slices.
  OptimizerState blank_state() const;
  void take_state(const OptimizerState& whole);
  const WindowMix& order() const { return order_; }
  bool captured() const { return variants_[0].graph || variants_[1].graph; }

 private:
  static constexpr int64_t kHistory = 1024;
  static constexpr int kStagingSlots = 4;
  static constexpr int64_t kEagerSteps =
      3;  // before the capture, so that every library has warmed up

  // Inputs of a step, filled on the host and copied to fixed places on the device.
  struct Staging {
    at::Tensor tokens, longs, floats;
    std::unique_ptr<CudaEvent> copied;  // done when the host may write here again; null on the CPU
  };

  void fill(Staging& staging, int64_t step, int64_t first_sequence);
  void upload(const Staging& staging);
  // A forward pass over the step's first micro-batch, the same in all processes.
  void set_ranges(int64_t step, int64_t first_sequence);
  // Steps with the guides and without are captured apart, and the host knows which is due, so that
  // what a step leaves out is not computed.
  struct Variant {
    std::unique_ptr<CudaGraph> graph;
    int64_t eager_steps = 0;
  };

  std::vector<StepPart> written(int64_t step);
  bool ranges_are_set();
  void capture_where_due(bool guided);
  void execute(bool guided);
  void compute(bool guided);
  void backward_pass(const at::Tensor& grads);
  // What the micro-batch left in that range is added to `grads`, and closes its group.
  void take_gradients(const at::Tensor& grads, const Range& range, int64_t micro_batch);
  // The sum over all processes, beside the rest of the backward pass.
  void send(const at::Tensor& grads, const Range& range);
  // The model's own parameters, and the guides.
  std::vector<Range> parts(bool guided) const;
  // Of that part: where this process's slice lies in the arena, and where in state_.
  Range own(const Range& part) const;
  int64_t place_in_state(const Range& part) const;
  void optimize(const at::Tensor& grads, const Range& part);
  bool wants_graph() const;

  Decoder& model_;
  Teacher* teacher_ = nullptr;
  const RunConfig& config_;
  const SelfGuidedPlan plan_;
  const CudaRuntime* cuda_;  // null on the CPU, and where there is only torch's own CUDA library
  std::shared_ptr<TokenStream> stream_;
  WindowMix order_;
  World& world_;
  BatchShare share_;
  int64_t micro_batches_, micro_batch_, context_;  // of this process
  std::unique_ptr<GradientSum> sum_;
  std::vector<Range> layer_parts_;     // sent as soon as they are there; empty: all at the end
  std::vector<Range> sent_;            // of those, in this step
  std::unique_ptr<RangePool> ranges_;  // where several calls of a step move ranges together
  bool started_ = false;               // a step was run here
  OptimizerState state_;
  at::Tensor
      accumulated_;    // fp32 gradients, only where several micro-batches run in half precision
  at::Tensor tokens_;  // int32 [M, b, T + 1]
  at::Tensor longs_;  // int64 [2 M + 2]: per micro-batch (step, first sequence); step; place in the
                      // history
  at::Tensor floats_;   // float [4]: lr, 1 - beta1^t, 1 - beta2^t, the guides' share
  at::Tensor control_;  // float [4]: clip coefficient, halted, step of the halt
  at::Tensor history_;  // float [kHistory, 2]: loss, norm
  at::Tensor losses_;   // float [groups]
  std::array<Staging, kStagingSlots> staging_;
  std::vector<std::string> faults_;
  std::vector<int64_t> pending_;     // steps whose records were not taken yet
  std::array<Variant, 2> variants_;  // without the guides, with them
};

}  // namespace refract
