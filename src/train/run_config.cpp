#include "train/run_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "core/expression.h"
#include "core/toml.h"
#include "train/batch_count.h"
#include "train/recipe_names.h"
#include "train/together/batch_share.h"

namespace refract {
namespace {

using nlohmann::json;

// The name that the recipe gives, whose defaults differ from AdamW's.
std::string given_optimizer(const json& tree) {
  if (!sets_key(tree, "optimizer.name")) return {};
  const json& name = tree["optimizer"]["name"];
  return name.is_string() ? name.get<std::string>() : std::string();
}

void describe_optimizer(Fields& fields, RunConfig& c) {
  using enum Decides;
  const Limits not_negative{.min = 0}, positive{.min = 0, .open_min = true};
  fields.add({"optimizer.name", kOutcome}, c.optimizer.name, "the optimizer",
             {"adamw", "adam", "sgd", "muon"});
  fields.add({"optimizer.lr", kOutcome}, c.optimizer.lr, "peak learning rate", not_negative);
  fields.add({"optimizer.betas", kOutcome}, c.optimizer.betas, "decay of the two moments");
  fields.add({"optimizer.eps", kOutcome}, c.optimizer.eps, "added to the root of the second moment",
             positive);
  fields.add({"optimizer.weight_decay", kOutcome}, c.optimizer.weight_decay,
             "weight decay, decoupled (adamw) or added to the gradient (sgd, whose default is 0)",
             not_negative);
  fields.add({"optimizer.decay", kOutcome}, c.optimizer.decay, "which parameters decay",
             {"matrices", "all"});
  fields.add({"optimizer.clip", kOutcome}, c.optimizer.clip,
             "largest global gradient norm; 0: no clipping", not_negative);
  fields.add({"optimizer.momentum", kOutcome}, c.optimizer.momentum,
             "momentum (sgd, muon, whose default is 0.95)", {.min = 0, .max = 1});
  fields.add({"optimizer.nesterov", kOutcome}, c.optimizer.nesterov,
             "Nesterov's momentum (sgd, muon, whose default is true)");
}

void describe_schedule(Fields& fields, RunConfig& c) {
  using enum Decides;
  const Limits not_negative{.min = 0}, positive{.min = 0, .open_min = true};
  fields.add({"schedule.kind", kOutcome}, c.schedule.kind, "the learning rate after the warm-up",
             {"constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "multistep"});
  fields.add({"schedule.warmup", kOutcome}, c.schedule.warmup,
             "steps of linear warm-up; a number below 1 is a fraction of all steps", not_negative);
  fields.add({"schedule.start", kOutcome}, c.schedule.start,
             "fraction of the peak at which the warm-up starts", {.min = 0, .max = 1});
  fields.add({"schedule.final", kOutcome}, c.schedule.final,
             "fraction of the peak at the end (but constant and multistep)", {.min = 0, .max = 1});
  fields.add({"schedule.warmup_from", kOutcome}, c.schedule.warmup_from,
             "what the first warm-up step counts as: with 1 the last one has the peak, with 0 the "
             "step after it",
             {.min = 0, .max = 1});
  fields.add({"schedule.cycles", kOutcome}, c.schedule.cycles,
             "how often the cosine comes down (cosine_with_restarts)", positive);
  fields.add({"schedule.power", kOutcome}, c.schedule.power, "exponent (polynomial)", positive);
  fields.add({"schedule.milestones", kOutcome}, c.schedule.milestones,
             "steps from which the rate is multiplied by schedule.gamma; numbers below 1 are "
             "fractions of all steps (multistep)");
  fields.add({"schedule.gamma", kOutcome}, c.schedule.gamma, "factor at a milestone (multistep)",
             not_negative);
}

// Where and in how many pieces a step is computed decides how its sums are rounded.
void describe_train(Fields& fields, RunConfig& c) {
  using enum Decides;
  const Limits count{.min = 1}, or_zero{.min = 0};
  fields.add({"train.steps", kOutcome}, c.train.steps, "optimizer steps; 0: from train.tokens",
             or_zero);
  fields.add(
      {"train.tokens", kOutcome}, c.train.tokens,
      "tokens to train on, a number or an expression over N, the parameter count: \"22*N/100\"");
  fields.add({"train.nominal", kOutcome}, c.train.nominal,
             "N of train.tokens, where a source counts with the size in a model's name; 0: the "
             "parameter count",
             or_zero);
  fields.add({"train.rounding", kOutcome}, c.train.rounding,
             "how the tokens over those of a step become a number of steps",
             {"nearest", "up", "down"});
  fields.add({"train.minutes", kNothing}, c.train.minutes,
             "where train.steps and train.tokens are not set: train as many steps as fit into this "
             "time on this machine, whose speed is measured first; 0: off",
             or_zero);
  fields.add({"train.only", kOutcome}, c.only,
             "train the parameters that this regular expression matches, on their whole names, and "
             "freeze all others; one that matches ranges of a medium alone trains no parameter; "
             "\"\": all, or with adapters theirs");
  fields.add({"train.batch", kOutcome}, c.train.batch,
             "sequences per optimizer step, over all ranks", count);
  fields.add({"train.micro_batch", kOutcome}, c.train.micro_batch,
             "sequences per forward pass; 0: the whole batch, or a process's or a group's part",
             or_zero);
  fields.add({"train.reduction_groups", kOutcome}, c.train.reduction_groups,
             "add gradients in the fixed order of so many groups of sequences, a power of two: any "
             "number of processes up to it gives the same bits; 0: off",
             or_zero);
  fields.add({"train.recompute", kNothing}, c.train.recompute,
             "what the backward pass computes again instead of finding it in memory, to the same "
             "bits: nothing; what is cheap, as norms and activation functions; or each decoder "
             "layer from its input, which takes a third more time",
             {"none", "cheap", "layer"});
  fields.add({"train.shard", kOutcome}, c.train.shard,
             "what several processes divide among them instead of each keeping all of it: nothing, "
             "or the optimizer's moments and its work",
             {"none", "optimizer"});
  fields.add({"train.save", kNothing}, c.train.save,
             "sync: training waits for a checkpoint; async: it goes on while a copy is written",
             {"sync", "async"});
  fields.add({"train.precision", kOutcome}, c.train.precision,
             "number format of the computation; weights are kept in fp32", {"fp32", "bf16"});
  fields.add({"train.device", kOutcome}, c.train.device, "where to run", {"auto", "cpu", "cuda"});
  fields.add({"train.cuda_graph", kOutcome}, c.train.cuda_graph,
             "capture the step as one CUDA graph", {"auto", "on", "off"});
  fields.add({"train.deterministic", kOutcome}, c.train.deterministic,
             "bit-reproducible on CUDA too (the CPU always is)");
  fields.add({"train.verify", kNothing}, c.train.verify,
             "steps between those that are computed twice and compared bit by bit; 0: none are",
             or_zero);
  fields.add({"train.threads", kOutcome}, c.train.threads, "CPU threads; 0: all cores",
             Limits{.min = 0, .max = 1024});
  fields.add({"train.timeout", kNothing}, c.train.timeout,
             "several processes: seconds without a sign of life from one after which all end",
             {.min = 1});
  fields.add({"distill.weight", kOutcome}, c.distill.weight,
             "share of the distance to a dense model's distribution in the loss; 0: off",
             {.min = 0, .max = 1});
  fields.add({"distill.temperature", kOutcome}, c.distill.temperature,
             "both distributions are compared at this temperature", {.min = 0, .open_min = true});
  fields.add({"distill.teacher", kOutcome}, c.distill.teacher,
             "the folder of the dense model to learn from; \"\": that of init.from");
  fields.add(
      {"self_guided.mode", kOutcome}, c.self_guided.mode,
      "guide structured layers by dense ones; fixedflop repeats the guided steps' data at the "
      "end",
      {"none", "fixedstep", "fixedflop"});
  fields.add({"self_guided.ratio", kOutcome}, c.self_guided.ratio,
             "part of the steps on fresh data that is guided",
             {.min = 0, .max = 1, .open_min = true});
  fields.add({"self_guided.schedule", kOutcome}, c.self_guided.schedule,
             "how the guide's share falls to 0", {"cosine", "linear"});
  fields.add({"self_guided.reduce_flop", kOutcome}, c.self_guided.reduce_flop,
             "compute the guides in a step only with the probability of their share");
  fields.add({"eval.every", kNothing}, c.eval.every,
             "steps between evaluations; 0: only at the end", or_zero);
  fields.add({"eval.batches", kNothing}, c.eval.batches,
             "\"all\" of the validation split, or a number of batches");
  fields.add({"eval.samples", kNothing}, c.eval.samples, "texts to sample at every evaluation",
             or_zero);
  fields.add({"eval.sample_tokens", kNothing}, c.eval.sample_tokens, "length of a sample", count);
  fields.add({"eval.prompt", kNothing}, c.eval.prompt, "what a sample starts with");
  fields.add({"eval.temperature", kNothing}, c.eval.temperature,
             "temperature of the samples; 0: always the most likely token", or_zero);
  fields.add({"decode.premerge", kNothing}, c.decode.premerge,
             "use merged dense matrices instead of factors in inference: auto decides by the "
             "number of tokens in a call",
             {"auto", "on", "off"});
  fields.add({"checkpoint.every", kNothing}, c.checkpoint.every,
             "steps between checkpoints; 0: only at the end", or_zero);
  fields.add({"checkpoint.keep", kNothing}, c.checkpoint.keep, "newest checkpoints to keep; 0: all",
             or_zero);
  fields.add({"checkpoint.permanent", kNothing}, c.checkpoint.permanent,
             "steps whose checkpoints are made and always kept");
  fields.add({"log.every", kNothing}, c.log.every,
             "steps between log points; the host reads nothing in between", count);
}

}  // namespace

void describe(Fields& fields, RunConfig& c) {
  using enum Decides;
  fields.add({"run.dir", kNothing}, c.run.dir, "folder that holds everything of the run");
  fields.add({"run.seed", kOutcome}, c.run.seed,
             "seed of the initial weights, and of data order, dropout and noise unless they have "
             "seeds of their own",
             {.min = 0});
  fields.add({"run.noise_seed", kOutcome}, c.run.noise_seed,
             "seed of dropout and noise; -1: run.seed", {.min = -1});
  describe(fields, c.data);
  describe(fields, c.model);
  fields.add({"init.from", kOutcome}, c.init.from,
             "starting weights: \"random\", a Hugging Face folder, a GGUF file, a Hub id in the "
             "cache, or a run");
  fields.add({"init.adapter", kOutcome}, c.init.adapter,
             "a folder with LoRA adapters as peft writes them, for the rules of the kind lora");
  describe_optimizer(fields, c);
  describe_schedule(fields, c);
  describe_train(fields, c);
  fields.add_raw({"transform", kFunction}, c.transform,
                 "ordered rules, see refract kinds and docs/transforms.md; or transform.legacy = "
                 "\"FILE\": a rule file of the published optical experiments");
}

RunConfig make_run_config(const json& tree, const std::string& where,
                          const ModelConfig* base_model) {
  RunConfig config;
  if (base_model) config.model = *base_model;
  if (sets_key(tree, "model.preset")) {
    const json& name = tree["model"]["preset"];
    if (!name.is_string()) fail_usage("{}: model.preset takes text", where);
    if (!name.get<std::string>().empty()) {
      if (base_model)
        fail_usage("{}: model.preset can't be set where init.from gives the model", where);
      config.model = preset(name.get<std::string>());
    }
  }
  const std::string optimizer = given_optimizer(tree);
  if (optimizer == "muon") {  // its paper's
    config.optimizer.momentum = 0.95;
    config.optimizer.nesterov = true;
  }
  // torch's defaults: what decays decoupled from the rate would be far too much inside of it.
  if (optimizer == "sgd") config.optimizer.weight_decay = 0;
  Fields fields;
  describe(fields, config);
  check_recipe_names(tree, fields, where);
  json own = tree;
  for (const auto& [name, check] : foreign_tables()) {
    if (!own.is_object() || !own.contains(name)) continue;
    check(tree, where);
    own.erase(name);
  }
  fields.set_all(own, where);
  check_run_config(config);
  return config;
}

void register_recipe_table(std::string name, RecipeTableCheck check) {
  foreign_tables().insert_or_assign(std::move(name), std::move(check));
}

std::string to_toml(RunConfig config) {
  Fields fields;
  describe(fields, config);
  return to_toml(fields.to_json());
}

int64_t resolve_steps(const RunConfig& config, int64_t parameter_count) {
  if (config.train.steps > 0) return config.train.steps;
  if (config.train.tokens.empty()) return 0;
  const RunConfig::Train& train = config.train;
  const double N = train.nominal > 0 ? train.nominal : static_cast<double>(parameter_count);
  const double tokens = evaluate_expression(train.tokens, {{"N", N}});
  const auto per_step = static_cast<double>(config.train.batch * config.data.context);
  if (tokens <= 0)
    fail_usage("train.tokens = \"{}\" is {}; it must be positive", config.train.tokens, tokens);
  const double steps = tokens / per_step;
  const double slack = 1e-9 * steps;  // what the expression's own rounding may have added
  const double whole = train.rounding == "up"     ? std::ceil(steps - slack)
                       : train.rounding == "down" ? std::floor(steps + slack)
                                                  : std::round(steps);
  return std::max<int64_t>(1, static_cast<int64_t>(whole));
}

namespace {

void check_schedule(const RunConfig::Schedule& s) {
  const bool stepped = s.kind == "multistep";
  if (stepped && s.milestones.empty())
    fail_usage("schedule.kind = \"multistep\" needs schedule.milestones, such as [0.3, 0.6, 0.8]");
  if (!stepped && !s.milestones.empty()) {
    fail_usage(
        "schedule.kind = \"{}\" has no milestones; schedule.milestones belongs to \"multistep\"",
        s.kind);
  }
  for (size_t i = 0; i < s.milestones.size(); ++i) {
    if (s.milestones[i] > (i == 0 ? 0.0 : s.milestones[i - 1])) continue;
    fail_usage("schedule.milestones takes positive numbers in rising order, not {}",
               fmt::join(s.milestones, ", "));
  }
}

}  // namespace

void check_run_config(const RunConfig& c) {
  check_schedule(c.schedule);
  if (c.optimizer.betas.size() != 2 || c.optimizer.betas[0] < 0 || c.optimizer.betas[0] >= 1 ||
      c.optimizer.betas[1] < 0 || c.optimizer.betas[1] >= 1) {
    fail_usage("optimizer.betas takes two numbers in [0, 1)");
  }
  if (c.train.micro_batch > 0 && c.train.batch % c.train.micro_batch != 0) {
    fail_usage("train.batch = {} is not a multiple of train.micro_batch = {}", c.train.batch,
               c.train.micro_batch);
  }
  check_reduction_groups(c);
  if (c.train.steps > 0 && !c.train.tokens.empty())
    fail_usage("set train.steps or train.tokens, not both");
  if (!c.only.empty() && c.self_guided.mode != "none") {
    fail_usage(
        "self-guided training trains the whole model; leave train.only out, or set "
        "self_guided.mode = \"none\"");
  }
  if (c.distill.on() && c.distill.teacher.empty() && c.init.from == "random") {
    fail_usage(
        "distill.weight = {} needs a model to learn from: set distill.teacher, or init.from to a "
        "dense model's folder",
        c.distill.weight);
  }
  if (c.optimizer.nesterov && c.optimizer.momentum == 0)
    fail_usage("optimizer.nesterov needs an optimizer.momentum above 0");
  if (c.model.init_scheme != "normal" && c.init.from != "random") {
    fail_usage(
        "init.scheme = \"{}\" draws random starting weights, but init.from = \"{}\" brings its "
        "own; "
        "leave init.scheme out",
        c.model.init_scheme, c.init.from);
  }
  batch_count(c.eval.batches, "eval.batches");
}

}  // namespace refract
