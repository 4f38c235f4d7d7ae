// Distillation: what a teacher shares with its student, its loss, and that a run with it resumes.
#include "train/repair/teacher.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "formats/checkpoint.h"
#include "formats/load_weights.h"
#include "runs/resume/run_teacher.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/tolerances.h"
#include "support/training.h"

namespace refract {
namespace teacher_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::has;

constexpr const char* kLora =
    R"([{"match": ".*_proj", "kind": "lora", "r": 2, "over": {"kind": "optical", "noise": false}}])";
constexpr const char* kOptical = R"([{"match": ".*_proj", "kind": "optical"}])";

// A folder with the tiny model of tiny_config(), of other random weights than a run's own.
fs::path teacher_folder_of(const std::string& name, uint64_t seed = 9) {
  RunConfig config = tiny_config(name);
  resolve(config.model, 16, config.data.context);
  Decoder model(config.model, DenseFactory());
  model.allocate(at::kCPU, at::kFloat);
  model.initialize(seed);
  const fs::path folder = config.run.dir;
  save_model(model, folder);
  return folder;
}

// A run that starts from a dense folder, as open_session() does.
struct StudentRun {
  StudentRun(RunConfig config, const fs::path& from) : session(open(std::move(config), from)) {
    trainer = std::make_unique<Trainer>(session.config, *session.model, session.data, session.steps,
                                        silent);
    trainer->set_teacher(session.teacher.get());
  }
  Observer silent;
  RunSession session;
  std::unique_ptr<Trainer> trainer;

 private:
  static RunSession open(RunConfig config, const fs::path& from) {
    config.init.from = from.string();
    resolve(config.model, 16, config.data.context);
    const Dataset data{nullptr, tiny_stream(), tiny_stream(2), "tiny"};
    return open_session(std::move(config), data, from, at::kCPU, "the test's recipe");
  }
};

RunConfig student_config(const std::string& name, const std::string& transform) {
  RunConfig config = tiny_config(name);
  config.transform = transform;
  config.distill.weight = 0.5;
  config.distill.temperature = 2;
  return config;
}

TEST(Teacher, SharesWhatIsFrozenAndEqual) {
  const fs::path folder = teacher_folder_of("shared_teacher");
  // Below adapters everything.
  const StudentRun adapters(student_config("shared_lora", kLora), folder);
  EXPECT_EQ(adapters.session.teacher->own_parameters(), 0);
  // Where all is trained nothing; where only norms are, all but norms.
  const StudentRun whole(student_config("shared_none", kOptical), folder);
  EXPECT_EQ(whole.session.teacher->own_parameters(), whole.session.model->arena().count());
  RunConfig norms = student_config("shared_norms", kOptical);
  norms.only = ".*norm.*";
  const StudentRun normed(norms, folder);
  EXPECT_EQ(normed.session.teacher->own_parameters(),
            normed.session.model->arena().trainable_count());
  // Of another model nothing.
  RunConfig other = student_config("shared_other", kLora);
  other.distill.teacher = teacher_folder_of("other_teacher", 10).string();
  const StudentRun foreign(other, folder);
  EXPECT_GT(foreign.session.teacher->own_parameters(), 1000);
}

// A shared teacher computes what a dense model of its own computes, before and after training.
TEST(Teacher, IsTheDenseModelAndStaysIt) {
  const fs::path folder = teacher_folder_of("stays_teacher");
  StudentRun run(student_config("stays", kLora), folder);
  const auto loss = [&] {
    const at::Tensor tokens = testing::tokens_for(run.session.config.model, 2, 9);
    const at::NoGradGuard no_grad;
    ForwardContext context;
    RunConfig::Distill hard{0.0, 1, ""};
    hard.weight = 1;
    return run.session.teacher
        ->loss(*run.session.model, context, tokens.narrow(1, 0, 8).contiguous(),
               tokens.narrow(1, 1, 8).contiguous(), hard)
        .item<double>();
  };
  auto dense = testing::make_decoder(run.session.config.model);
  load_weights(*dense, folder);
  const at::Tensor tokens = testing::tokens_for(run.session.config.model, 2, 8);
  const at::NoGradGuard no_grad;
  auto& teacher = const_cast<Decoder&>(run.session.teacher->model());
  EXPECT_TRUE(at::equal(teacher.hidden({}, tokens), dense->hidden({}, tokens)));
  const double before = loss();
  EXPECT_GT(before, 0);  // the student is optical
  {
    const at::AutoGradMode grad(true);
    run.trainer->run();
  }
  EXPECT_TRUE(at::equal(teacher.hidden({}, tokens), dense->hidden({}, tokens)));
  EXPECT_NE(loss(), before);
}

// The loss and every gradient of the student, against whole logits in float64.
TEST(Teacher, GradientsAreThoseOfTheDefinition) {
  const ModelConfig config = testing::small_llama();
  const fs::path folder = fs::path(tiny_config("gradient_teacher").run.dir);
  save_model(*testing::make_decoder(config, at::kFloat, DenseFactory(), 5), folder);
  const auto student = testing::make_decoder(config, at::kDouble),
             plain = testing::make_decoder(config, at::kDouble),
             dense = testing::make_decoder(config, at::kDouble);
  load_weights(*dense, folder);
  Teacher teacher(*student, folder, 8);
  const at::Tensor tokens = testing::tokens_for(config, 2, 9);
  const at::Tensor inputs = tokens.narrow(1, 0, 8).contiguous(),
                   targets = tokens.narrow(1, 1, 8).contiguous();
  const RunConfig::Distill settings{0.3, 1.7, ""};
  const at::Tensor loss = teacher.loss(*student, {}, inputs, targets, settings);
  loss.backward();
  at::Tensor q;
  {
    const at::NoGradGuard no_grad;
    q = dense->logits(dense->hidden({}, inputs)).div(1.7).log_softmax(-1);
  }
  const at::Tensor logits = plain->logits(plain->hidden({}, inputs));
  const at::Tensor hard = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).neg().sum();
  const at::Tensor soft = q.exp().mul(q - logits.div(1.7).log_softmax(-1)).sum();
  const at::Tensor expected = hard.mul(0.7) + soft.mul(0.3 * 1.7 * 1.7);
  expected.backward();
  testing::expect_close(loss.detach(), expected.detach(), "loss", 10);
  for (const Parameter& p : student->arena().parameters()) {
    testing::expect_close(student->arena().gradient(&p),
                          plain->arena().gradient(plain->arena().find(p.name)), p.name, 100);
  }
}

TEST(Teacher, ARunLearnsFromItAndResumesBitForBit) {
  const fs::path folder = teacher_folder_of("resume_teacher");
  for (const char* transform : {kLora, kOptical}) {
    RunConfig config = student_config("distilled", transform);
    config.train.micro_batch = 2;
    StudentRun whole(config, folder);
    whole.trainer->run();
    fs::remove_all(config.run.dir);
    RunConfig part = config;
    part.checkpoint.permanent = {5};
    StudentRun(part, folder).trainer->run(5);
    StudentRun resumed(config, folder);
    ASSERT_EQ(resumed.trainer->resume(), 5);
    resumed.trainer->run();
    EXPECT_TRUE(
        at::equal(whole.session.model->arena().master(), resumed.session.model->arena().master()));
    RunConfig plain = config;
    plain.run.dir += "_plain";
    plain.distill.weight = 0;
    StudentRun without(plain, folder);
    EXPECT_EQ(without.session.teacher, nullptr);
    without.trainer->run();
    EXPECT_FALSE(
        at::equal(whole.session.model->arena().master(), without.session.model->arena().master()));
  }
}

TEST(Teacher, SaysWhatIsWrongInOneLine) {
  RunConfig config = tiny_config("no_teacher");
  config.distill.weight = 0.5;
  EXPECT_TRUE(
      has(error_of([&] { check_run_config(config); }), "set distill.teacher, or init.from"));
  const fs::path folder = teacher_folder_of("wrong_teacher");
  RunConfig narrow = student_config("wrong_vocabulary", "");
  ModelConfig small = testing::small_gpt2();
  const fs::path other = fs::path(tiny_config("wrong_other").run.dir);
  save_model(*testing::make_decoder(small), other);
  narrow.distill.teacher = other.string();
  EXPECT_TRUE(has(error_of([&] { StudentRun(narrow, folder); }), "has 13 tokens and the model 16"));
  // A run remembers its teacher's weights.
  StudentRun run(student_config("remembers", kLora), folder);
  fs::create_directories(run.session.config.run.dir);
  write_teacher_record(run.session.config.run.dir, *run.session.teacher);
  check_teacher(run.session.config.run.dir, *run.session.teacher);
  RunConfig swapped = student_config("swapped", kLora);
  swapped.distill.teacher = teacher_folder_of("swapped_teacher", 11).string();
  StudentRun changed(swapped, folder);
  EXPECT_TRUE(
      has(error_of([&] { check_teacher(run.session.config.run.dir, *changed.session.teacher); }),
          "has other weights than when the run"));
}

}  // namespace teacher_test
}  // namespace refract
