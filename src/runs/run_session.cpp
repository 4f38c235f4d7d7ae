#include "runs/run_session.h"

#include <algorithm>

#include "analysis/model_flops.h"
#include "analysis/peak.h"
#include "core/error.h"
#include "core/files.h"
#include "formats/load_weights.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/plan.h"
#include "runs/resume/run_corpus.h"
#include "runs/resume/run_teacher.h"
#include "runs/run_cost.h"
#include "transforms/peft.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

}  // namespace

Dataset open_run_data(RunConfig& config, const fs::path& source, bool names_tokenizer) {
  Dataset data = open_run_corpus(config, source, names_tokenizer);
  int64_t vocabulary = data.tokenizer ? data.tokenizer->vocab_size() : 0;
  // A tokenizer may have more tokens than a finished model has embeddings. It is the tokens of the
  // text that count, which are looked at below.
  if (!source.empty() && config.model.vocab_size > 0)
    vocabulary = std::min(vocabulary, config.model.vocab_size);
  resolve(config.model, vocabulary, config.data.context);
  resolve_document_token(config.data, data.tokenizer.get());
  check_tokens(*data.train, config.model.vocab_size, "the training tokens");
  if (data.validation)
    check_tokens(*data.validation, config.model.vocab_size, "the validation tokens");
  return data;
}

RunSession open_session(RunConfig config, const Dataset& data, const fs::path& source,
                        at::Device device, const std::string& where, bool names_tokenizer) {
  RunSession session;
  session.config = std::move(config);
  session.data = data;
  if (!source.empty()) check_layer_count(session.config.model, source);
  TransformedModel planned = plan_model(session.config, where);
  session.plan = plan_table(planned);
  session.transforms = transforms_toml(planned.rules, planned.plan);
  session.model = std::move(planned.decoder);
  session.steps = resolve_steps(session.config, session.model->arena().count());
  if (session.steps == 0) fail_usage("{}: set train.steps, train.tokens or train.minutes", where);
  if (!source.empty()) check_weights(*session.model, source, /*starting=*/true);
  session.model->allocate(device, compute_dtype(session.config));
  session.model->initialize(static_cast<uint64_t>(session.config.run.seed));
  if (!source.empty()) {
    session.taken_over = start_from_weights(*session.model, source);
    session.carried = read_carried(source);
    // One that is named beside the model's own gives its ids the same meaning.
    if (names_tokenizer && !folder_tokenizer(source)) session.carried.drop_tokenizer();
  }
  if (!session.config.init.adapter.empty())
    load_adapter(*session.model, planned.rules, session.config.init.adapter);
  session.rules = std::move(planned.rules);
  session.teacher = make_teacher(session.config, *session.model, session.data.tokenizer.get());
  return session;
}

void make_run_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("can't make the run folder '{}': {}", folder.string(), error.message());
}

void write_run_settings(const RunSession& session) {
  const fs::path folder = session.config.run.dir;
  write_file_atomically(folder / "config.toml", to_toml(session.config));
  if (!session.transforms.empty())
    write_file_atomically(folder / "transforms.toml", session.transforms);
}

RunReporter::Options reporter_options(const RunSession& session, at::Device device) {
  const RunConfig& config = session.config;
  RunReporter::Options options;
  options.folder = config.run.dir;
  options.steps =
      static_cast<int64_t>(cost_of_run(config, *session.model, session.steps).run.steps);
  const DecoderShape shape = shape_of(*session.model, config.data.context);
  options.flops_per_token = training_flops_per_token(shape).total();
  if (session.teacher) {
    options.flops_per_token +=
        forward_flops_per_token(shape_of(session.teacher->model(), config.data.context)).total();
  }
  options.guide_flops_per_token = guide_flops_per_token(shape).total();
  options.peak_flops = peak_flops(device_name(device), arithmetic(config)).value_or(0);
  return options;
}

}  // namespace refract
