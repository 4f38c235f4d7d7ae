// The curvature of a model as numbers, files and pictures.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "studies/curvature/curvature.h"

namespace refract {

// {"model", "corpus", "tokens", "context", "parameters", "precision", "step", "kinds", "loss",
// "gradient_length", "hessian": {"eigenvalues": [{"value", "residual"}], "smallest", "products",
// "converged", "asymmetry", "trace": {"mean", "standard_error", "probes"}, "step_error":
// {"largest", "random"}, "density"}, "gauss_newton", "along", "plane", "seconds"}; what is not
// finite is null.
nlohmann::json curvature_json(const CurvatureResult& result);
std::string curvature_text(const CurvatureResult& result);
// curvature.json and report.html.
void write_curvature(const CurvatureResult& result, const std::filesystem::path& folder);

}  // namespace refract
