#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/curvature/curvature.h"
#include "studies/curvature/curvature_output.h"

namespace refract {
namespace {

class CurvatureCommand : public Command {
 public:
  std::string name() const override { return "curvature"; }
  std::string summary() const override {
    return "How the loss bends around a model: eigenvalues and trace of its Hessian";
  }
  std::string example() const override {
    return "refract curvature runs/demo --tokens 512 --top 2 --probes 2";
  }
  void declare(CommandLine& line) override;
  int run() override;

 private:
  CurvatureStudy study_;
  bool json_ = false;
};

void CurvatureCommand::declare(CommandLine& line) {
  line.positional(
      "model", study_.model,
      "a run, a checkpoint, a Hugging Face folder, a GGUF file, or a Hub id in the cache");
  line.positional("overrides", study_.overrides, "key=value settings");
  line.option("--data", study_.data, "another corpus; may be given several times");
  line.option("--split", study_.split, "of the run's own corpus: train or val");
  line.option("--tokens", study_.tokens, "how many tokens the loss is the mean over");
  line.option("--of", study_.of, "hessian, gauss-newton, or both");
  line.option("--top", study_.lanczos.top, "how many of the largest eigenvalues");
  line.option("--tolerance", study_.lanczos.tolerance,
              "of an eigenvalue's residual, over the largest eigenvalue");
  line.option("--products", study_.lanczos.most_products,
              "products with vectors for the eigenvalues, at most");
  line.option("--basis", study_.lanczos.basis,
              "vectors held at once for the eigenvalues, in the host's memory; 0: 2 top + 6");
  line.option("--probes", study_.probes, "random vectors for the trace; 0: no trace");
  line.option("--density", study_.density,
              "products a probe for the spectral density; 0: no density");
  line.option("--along", study_.along, "also along the straight path from this model");
  line.option("--points", study_.points, "points on that path, both ends included");
  line.option("--plane", study_.plane,
              "also the loss on N x N points around the model, in two random directions whose "
              "filters are as long as the model's");
  line.option("--extent", study_.extent, "how far the plane reaches, in those directions");
  line.option("--precision", study_.precision,
              "float64, fp32, or auto: float64 for plain layers on a CPU");
  line.option(
      "--step", study_.step,
      "of differences, over the length of the weights; 0: 1e-7 in float64, 3e-5 in fp32, 1e-3 "
      "where the gradient jumps");
  line.option("--seed", study_.seed, "of random vectors");
  line.option("--out", study_.out, "folder for curvature.json and report.html");
  line.flag("--json", json_, "print one JSON object");
}

int CurvatureCommand::run() {
  const CurvatureResult result = measure_curvature(study_);
  if (json_) {
    fmt::print("{}\n", curvature_json(result).dump());
    return 0;
  }
  fmt::print("{}", curvature_text(result));
  log_info("wrote {}", (std::filesystem::path(study_.out) / "report.html").string());
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_curvature_command() { return std::make_unique<CurvatureCommand>(); }

}  // namespace refract
