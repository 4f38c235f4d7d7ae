// train.only: what is frozen, what its gradients are, and that a run with it resumes.
#include "train/repair/train_only.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>

#include "core/error.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/tolerances.h"
#include "support/training.h"

namespace refract {
namespace train_only_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::has;

// Biases, norms, one member of a group of layers, two that are not neighbours, tables, a layer.
const char* const kExpressions[] = {R"(.*\.bias)",
                                    ".*norm.*",
                                    R"(.*q_proj\.(weight|bias))",
                                    R"(.*[qv]_proj\.weight)",
                                    R"(.*k_proj\.bias)",
                                    R"(.*up_proj\.weight)",
                                    R"(model\.embed_tokens\.weight)",
                                    R"(lm_head\.weight)",
                                    R"(model\.layers\.1\..*)"};

at::Tensor loss_of(Decoder& model) {
  const at::Tensor tokens = testing::tokens_for(model.config(), 2, 8);
  ForwardContext context;
  return model
      .loss(context, tokens.narrow(1, 0, 7).contiguous(), tokens.narrow(1, 1, 7).contiguous())
      .sum;
}

// Of a model whose other parameters are frozen, against those of the whole model.
void expect_gradients_of_the_whole(const ModelConfig& config, const std::string& expression,
                                   const std::string& what) {
  const auto whole = testing::make_decoder(config, at::kDouble);
  const std::regex regex(expression);
  bool any = false;
  for (const Parameter& p : whole->arena().parameters())
    any = any || std::regex_match(p.name, regex);
  Decoder part(config, DenseFactory());
  if (!any) {
    EXPECT_THROW(train_only(part, expression, "the test"), Error) << what;
    return;
  }
  train_only(part, expression, "the test");
  part.allocate(at::kCPU, at::kDouble, at::kDouble);
  for (const Parameter& p : part.arena().parameters())
    part.arena().value(&p).copy_(whole->arena().value(whole->arena().find(p.name)));
  loss_of(*whole).backward();
  for (int pass = 0; pass < 2; ++pass) {  // what is put together is put together anew
    part.arena().grads().zero_();
    loss_of(part).backward();
  }
  int64_t trained = 0;
  for (const Parameter& p : part.arena().parameters()) {
    ASSERT_EQ(p.trainable, std::regex_match(p.name, regex)) << p.name;
    if (!p.trainable) {
      EXPECT_FALSE(part.arena().leaf(&p).requires_grad()) << what << ": " << p.name;
      continue;
    }
    trained += p.stored_numel();
    testing::expect_close(part.arena().gradient(&p),
                          whole->arena().gradient(whole->arena().find(p.name)),
                          what + ": " + p.name);
  }
  // Gradients and moments exist for these alone, but for the space between them.
  EXPECT_GE(part.arena().grads().numel(), trained);
  EXPECT_LE(part.arena().grads().numel(),
            trained + 64 * static_cast<int64_t>(part.arena().parameters().size()));
}

TEST(TrainOnly, GradientsAreThoseOfTheWholeModel) {
  for (const auto& [name, config] : testing::every_setting()) {
    if (config.dropout > 0 || config.embedding_dropout > 0) continue;
    for (const char* expression : kExpressions)
      expect_gradients_of_the_whole(config, expression, name + ", " + expression);
  }
}

TEST(TrainOnly, SaysWhatIsWrongInOneLine) {
  const auto error = [](const std::string& expression) {
    return error_of([&] {
      Decoder model(testing::small_gpt2(), DenseFactory());
      train_only(model, expression, "recipe.toml");
    });
  };
  const std::string nothing = error(".*gate_proj.*");
  EXPECT_TRUE(has(nothing, "recipe.toml: train.only = '.*gate_proj.*' matches no parameter"))
      << nothing;
  EXPECT_TRUE(has(nothing, "'model.embed_tokens.weight'")) << nothing;
  EXPECT_TRUE(has(error("(q_proj"), "train.only is not a regular expression"));
  EXPECT_TRUE(has(error("q_proj"), "matches no parameter"));  // whole names
  RunConfig config = tiny_config("only_guided");
  config.only = ".*norm.*";
  config.self_guided.mode = "fixedstep";
  EXPECT_TRUE(has(error_of([&] { check_run_config(config); }), "leave train.only out"));
}

std::map<std::string, at::Tensor> values_of(Decoder& model) {
  std::map<std::string, at::Tensor> values;
  for (const Parameter& p : model.arena().parameters())
    values[p.name] = model.arena().value(&p).clone();
  return values;
}

RunConfig medium_config(const std::string& name, const std::string& rule) {
  RunConfig config = tiny_config(name);
  config.transform = rule;
  return config;
}

constexpr const char* kOptical = R"([{"match": ".*_proj", "kind": "optical"}])";

struct RunCase {
  std::string name, transform, expression;
};

// A run changes what it trains, and nothing else but ranges; stopped and resumed it gives the same.
TEST(TrainOnly, ARunChangesWhatItTrainsAndResumes) {
  const std::string lora = R"([{"match": ".*_proj", "kind": "lora", "r": 2, "over": "optical"}])";
  const std::string factors = R"([{"match": ".*up_proj", "kind": "low_rank", "rank": 4}])";
  const std::string fine =
      R"([{"match": ".*_proj", "kind": "conditioned", "over": {"kind": "optical", "q_x_per": "token"}}])";
  for (const RunCase& c :
       {RunCase{"dense", "", R"(.*q_proj\.weight)"},
        RunCase{"optical", kOptical, R"(.*v_proj\.(weight|bias))"},
        RunCase{"norms", kOptical, ".*norm.*"}, RunCase{"adapters", lora, R"(.*(lora_B.*|norm.*))"},
        RunCase{"factor", factors, R"(.*U\.weight)"},
        RunCase{"conditioned", fine, R"(.*(up|k)_proj\.weight)"}}) {
    SCOPED_TRACE(c.name);
    RunConfig config = medium_config("only_" + c.name, c.transform);
    config.only = c.expression;
    TinyRun whole(config);
    const auto before = values_of(*whole.model);
    whole.trainer->run();
    const std::regex regex(c.expression);
    int64_t changed = 0;
    for (const auto& [name, value] : values_of(*whole.model)) {
      const bool same = at::equal(value, before.at(name));
      EXPECT_EQ(same, !std::regex_match(name, regex)) << name;
      changed += same ? 0 : value.numel();
    }
    EXPECT_EQ(changed, whole.model->arena().trainable_count());

    fs::remove_all(config.run.dir);
    RunConfig part = config;
    part.checkpoint.permanent = {5};
    TinyRun(part).trainer->run(5);
    TinyRun resumed(config);
    ASSERT_EQ(resumed.trainer->resume(), 5);
    resumed.trainer->run();
    EXPECT_TRUE(at::equal(whole.model->arena().master(), resumed.model->arena().master()));
  }
}

// No parameter is trained, and ranges follow the data.
TEST(TrainOnly, RangesAlone) {
  RunConfig config = medium_config("only_ranges", kOptical);
  config.only = R"(.*_range)";
  TinyRun run(config);
  const auto before = values_of(*run.model);
  EXPECT_EQ(run.model->arena().trainable_count(), 0);
  EXPECT_EQ(run.model->arena().grads().numel(), 0);
  const RunResult result = run.trainer->run();
  EXPECT_TRUE(result.finished);
  EXPECT_GT(result.loss, 1);
  for (const auto& [name, value] : values_of(*run.model))
    EXPECT_TRUE(at::equal(value, before.at(name))) << name;
  for (const BufferStore::Buffer& buffer : run.model->buffers().all())
    EXPECT_TRUE(std::isfinite(buffer.tensor.max().item<float>())) << buffer.name;
  TinyRun resumed(config);
  EXPECT_EQ(resumed.trainer->resume(), 12);
}

}  // namespace train_only_test
}  // namespace refract
