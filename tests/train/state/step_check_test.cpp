#include "train/state/step_check.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "model/dense.h"
#include "support/errors.h"
#include "support/training.h"
#include "train/step.h"

namespace refract {
namespace step_check_test {

using testing::error_of;
using testing::has;

// Flips one bit of the element in memory, past autograd.
void flip_bit(const at::Tensor& tensor, int64_t element, int bit) {
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(tensor.const_data_ptr()));
  bytes += element * tensor.element_size();
  bytes[bit / 8] ^= static_cast<unsigned char>(1U << (bit % 8));
}

// A state of two numbers that a step adds one to; in the n-th computation, from 1 on, `wrong` may
// change it.
struct Counter {
  at::Tensor a = at::zeros({3}), b = at::tensor({5}, at::kInt);
  int calls = 0;

  std::optional<StepFault> step(const std::function<void(Counter&)>& wrong) {
    StepCheck check({{"a", a, [](int64_t i) { return "place " + std::to_string(i); }}, {"b", b}});
    return check.run([&] {
      ++calls;
      a.add_(1);
      b.add_(1);
      wrong(*this);
    });
  }
};

TEST(StepCheck, ComputesTwiceWhereTheBitsAgree) {
  Counter counter;
  EXPECT_FALSE(counter.step([](Counter&) {}));
  EXPECT_EQ(counter.calls, 2);
  EXPECT_TRUE(at::equal(counter.a, at::tensor({1.F, 1.F, 1.F})));
  EXPECT_EQ(counter.b.item<int>(), 6);
}

TEST(StepCheck, ANanEqualsItself) {
  Counter counter;
  EXPECT_FALSE(counter.step([](Counter& c) { c.a.select(0, 1).fill_(NAN); }));
  EXPECT_EQ(counter.calls, 2);
}

TEST(StepCheck, KeepsWhatTwoOfThreeAgreeOn) {
  for (const int wrong : {1, 2}) {
    Counter counter;
    const auto fault = counter.step([&](Counter& c) {
      if (c.calls == wrong) flip_bit(c.a, 2, 0);  // the last bit of the number
    });
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->wrong, wrong);
    EXPECT_EQ(fault->describe(), "a (at place 2)");
    EXPECT_EQ(counter.calls, 3);
    EXPECT_TRUE(at::equal(counter.a, at::tensor({1.F, 1.F, 1.F})));
  }
}

TEST(StepCheck, GoesBackWhereNoTwoAgree) {
  Counter counter;
  const auto fault = counter.step([](Counter& c) { flip_bit(c.b, 0, c.calls); });
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->wrong, 0);
  EXPECT_EQ(fault->describe(), "b");
  EXPECT_TRUE(at::equal(counter.a, at::zeros({3})));
  EXPECT_EQ(counter.b.item<int>(), 5);
}

// Calls `hook` with the output of every group of linear layers.
using Hook = std::function<void(const at::Tensor& output)>;
class HookedProjections : public Projections {
 public:
  HookedProjections(std::unique_ptr<Projections> inner, const Hook& hook)
      : inner_(std::move(inner)), hook_(hook) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    at::Tensor y = inner_->forward(context, x);
    if (hook_) hook_(y);
    return y;
  }

 private:
  std::unique_ptr<Projections> inner_;
  const Hook& hook_;
};

class HookedFactory : public DenseFactory {
 public:
  explicit HookedFactory(const Hook& hook) : hook_(hook) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return std::make_unique<HookedProjections>(DenseFactory::projections(build, spec), hook_);
  }

 private:
  const Hook& hook_;
};

constexpr int64_t kSteps = 4;
constexpr int64_t kGroups = 8;  // of linear layers in one forward pass: four in each of two layers

// A model and its steps; `hook` is called kGroups times in a step's computation.
struct Machine {
  explicit Machine(RunConfig wanted) : config(std::move(wanted)) {
    resolve(config.model, 16, config.data.context);
    model = std::make_unique<Decoder>(config.model, HookedFactory(hook));
    model->allocate(at::kCPU, config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat);
    model->initialize(1);
    step = std::make_unique<TrainStep>(*model, config, tiny_stream(), kSteps);
  }
  void run() {
    for (int64_t i = 0; i < kSteps; ++i) step->run(i, i * config.train.batch);
  }

  RunConfig config;
  Hook hook;
  std::unique_ptr<Decoder> model;
  std::unique_ptr<TrainStep> step;
};

RunConfig settings(const std::string& precision) {
  RunConfig config = tiny_config("verify");
  config.train.steps = kSteps;
  config.train.precision = precision;
  return config;
}

struct Flip {
  const char* name;
  std::function<void(Machine&, const at::Tensor& output)> inject;
  const char* named;  // what the warning must say
};

int64_t offset_of(const Machine& machine, const std::string& name) {
  return machine.model->arena().find(name)->offset;
}

// In half precision the forward pass reads a rounded copy, and the weights lie still until the
// optimizer moves them.
std::vector<Flip> flips(bool half) {
  return {
      {"activation",
       [](Machine&, const at::Tensor& y) { flip_bit(y, 5, y.element_size() * 8 - 3); }, "the loss"},
      {"weight",
       [](Machine& m, const at::Tensor&) {
         flip_bit(m.model->arena().master(), offset_of(m, "model.norm.weight") + 1, 20);
       },
       half ? "the weights (at 'model.norm.weight' 1)" : "the loss"},
      {"gradient",
       [](Machine& m, const at::Tensor&) {
         const at::Tensor& grads = m.model->arena().grads();
         flip_bit(grads, offset_of(m, "model.norm.weight") + 1, grads.element_size() * 8 - 2);
       },
       "the gradient's norm"},
      {"first moment",
       [](Machine& m, const at::Tensor&) {
         flip_bit(m.step->state().exp_avg, offset_of(m, "model.norm.weight") + 1, 29);
       },
       "the first moments (at 'model.norm.weight' 1)"},
      {"second moment",
       [](Machine& m, const at::Tensor&) {
         flip_bit(m.step->state().exp_avg_sq, offset_of(m, "model.norm.weight") + 1, 29);
       },
       "the second moments (at 'model.norm.weight' 1)"},
  };
}

// Every flip in the first and in the second computation of step 2, in the middle of its forward
// pass.
void expect_caught(const RunConfig& config) {
  Machine clean(config);
  clean.run();
  for (const Flip& flip : flips(config.train.precision == "bf16")) {
    for (const int64_t wrong : {1, 2}) {
      RunConfig verified = config;
      verified.train.verify = 2;
      Machine machine(verified);
      int64_t calls = 0;
      machine.hook = [&](const at::Tensor& y) {
        if (++calls == kGroups * wrong + 6) flip.inject(machine, y);
      };
      machine.run();
      SCOPED_TRACE(std::string(flip.name) + (wrong == 1 ? ", first" : ", second"));
      EXPECT_EQ(calls, kGroups * (kSteps + 2 + 1));  // steps 2 and 4 twice, step 2 once more
      ASSERT_EQ(machine.step->faults().size(), 1U);
      const std::string& fault = machine.step->faults()[0];
      EXPECT_TRUE(has(fault, "step 2 gave other bits")) << fault;
      EXPECT_TRUE(has(fault, wrong == 1 ? "The first of three" : "The second of three")) << fault;
      EXPECT_TRUE(has(fault, flip.named)) << fault;
      EXPECT_TRUE(at::equal(machine.model->arena().master(), clean.model->arena().master()));
      EXPECT_TRUE(at::equal(machine.step->state().exp_avg, clean.step->state().exp_avg));
      EXPECT_TRUE(at::equal(machine.step->state().exp_avg_sq, clean.step->state().exp_avg_sq));
    }
  }
}

TEST(VerifiedSteps, CatchAFlippedBit) { expect_caught(settings("fp32")); }

TEST(VerifiedSteps, CatchAFlippedBitInHalfPrecision) { expect_caught(settings("bf16")); }

TEST(VerifiedSteps, ChangeNothingOfARun) {
  RunConfig config = settings("fp32");
  config.train.micro_batch = 2;
  config.model.dropout = 0.1;
  Machine plain(config);
  plain.run();
  config.train.verify = 1;
  Machine verified(config);
  verified.run();
  EXPECT_TRUE(verified.step->faults().empty());
  EXPECT_TRUE(at::equal(verified.model->arena().master(), plain.model->arena().master()));
}

TEST(VerifiedSteps, StopWhereNoTwoComputationsAgree) {
  RunConfig config = settings("fp32");
  config.train.verify = 1;
  Machine machine(config);
  const at::Tensor before = machine.model->arena().master().clone();
  int64_t calls = 0;
  machine.hook = [&](const at::Tensor&) {
    if (++calls % kGroups == 0) flip_bit(machine.step->state().exp_avg, calls, 30);
  };
  const std::string error = error_of([&] { machine.run(); });
  EXPECT_TRUE(has(error, "step 1 was computed three times")) << error;
  EXPECT_TRUE(has(error, "the first moments")) << error;
  EXPECT_TRUE(at::equal(machine.model->arena().master(), before));
}

}  // namespace step_check_test
}  // namespace refract
