#include "studies/media/medium_bench.h"

#include <ATen/core/grad_mode.h>

#include <memory>
#include <utility>

#include "core/error.h"
#include "formats/load_weights.h"
#include "runs/device.h"

namespace refract {
namespace {

// Statistics of every role, each seen once.
class RoleWatch : public MediumObserver {
 public:
  at::Tensor see(const Observation& seen) override {
    if (known_.insert({seen.module, seen.role}).second) all.push_back(role_statistics(seen));
    return seen.values;
  }
  void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}
  std::vector<RoleStatistics> all;

 private:
  std::set<std::pair<std::string, std::string>> known_;
};

}  // namespace

MediumBench::MediumBench(const std::string& model, const MediumChoice& medium,
                         const std::vector<std::string>& overrides,
                         const std::vector<std::string>& data, int64_t tokens)
    : loaded_(load_model(model, with_medium(medium, overrides))) {
  if (loaded_.rules.empty()) {
    fail_usage("'{}' has no transform rules, so there is no medium; give --kind or --rules", model);
  }
  tokens_ = study_tokens(loaded_, data, tokens, StudySplit::kValidation);
  rebuild();
}

double MediumBench::loss(const Names& modules, const std::string& like, int64_t first) {
  return run(modules, [&](size_t batch) {
    if (like.empty()) {
      switches_.plain();
    } else {
      switches_.replay(like, batch, first);
    }
  });
}

double MediumBench::keep(const Names& modules, const std::string& name) {
  return run(modules, [&](size_t batch) { switches_.keep(name, batch); });
}

double MediumBench::observed_loss(MediumObserver& observer) {
  const ObserverScope scope(observer);
  return loss({});
}

std::vector<RoleStatistics> MediumBench::role_statistics_of_first_batch() {
  RoleWatch watch;
  const ObserverScope scope(watch);
  const at::NoGradGuard no_grad;
  switches_.plain();
  loaded_.model->hidden(tokens_.context(0, loaded_.model->device()), tokens_.batches[0].inputs);
  return std::move(watch.all);
}

// The loaded model is the plain one; the same weights go behind switches, and it goes.
void MediumBench::rebuild() {
  if (loaded_.model->document_token()) {
    fail_usage(
        "'{}' isolates documents, which a switch between media can't; add data.documents=joined",
        loaded_.folder.string());
  }
  const TransformFactory factory(loaded_.rules);
  const SwitchedFactory switched(factory, switches_);
  auto model = std::make_unique<Decoder>(loaded_.config.model, switched);
  model->allocate(loaded_.model->device(), compute_dtype(loaded_.config));
  loaded_.model.reset();
  loaded_.premerged.clear();
  load_weights(*model, loaded_.folder);
  loaded_.model = std::move(model);
}

double MediumBench::run(const Names& modules, const std::function<void(size_t)>& prepare) {
  const at::NoGradGuard no_grad;
  switches_.set(modules);
  double sum = 0;
  for (size_t batch = 0; batch < tokens_.batches.size(); ++batch) {
    prepare(batch);
    const ForwardContext context = tokens_.context(batch, loaded_.model->device(), fresh_);
    fresh_ = false;
    sum +=
        loaded_.model->loss(context, tokens_.batches[batch].inputs, tokens_.batches[batch].targets)
            .sum.item<double>();
  }
  return sum / static_cast<double>(tokens_.count);
}

}  // namespace refract
