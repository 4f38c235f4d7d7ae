#include <array>

#include "fuzz/fuzz_target.h"
#include "report/energy/energy_record.h"
#include "report/run/evaluation_record.h"
#include "report/run_record.h"

// What a report reads of a run beside its settings and ranges. The first byte says which of the
// files the rest is.
FUZZ_TARGET(run_folder) {
  constexpr std::array kFiles = {"metrics.jsonl", "samples.jsonl", "transforms.toml",
                                 "starts.jsonl",  "energy.json",   "evaluation.json"};
  static const refract::fuzz::Folder folder;
  if (text.empty()) return;
  const auto file = static_cast<unsigned char>(text.front()) % kFiles.size();
  const std::filesystem::path path = folder.write(kFiles.at(file), text.substr(1));
  if (file == 0) {
    refract::RunRecord run;
    run.metrics = refract::read_metrics(folder.path());
    if (run.last_step() < -1) std::abort();
    for (const auto& [name, curve] : run.metrics) {
      if (curve.steps.size() != curve.values.size()) std::abort();
      curve.lowest();
    }
  }
  if (file == 1) refract::read_samples(folder.path());
  if (file == 2) {
    for (const refract::TransformRow& row : refract::read_transform_rows(path)) {
      if (row.modules < 0 || row.dense_parameters < 0 || row.parameters < 0) std::abort();
    }
  }
  if (file == 3) refract::read_starts(folder.path());
  if (file == 4) refract::read_energy(folder.path());
  if (file == 5) refract::read_evaluation(folder.path());
}
