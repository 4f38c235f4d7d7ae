// Scaling laws as numbers, tables and pictures.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "studies/scale.h"

namespace refract {

// {"metric", "confidence", "runs": [...], "fits": [...], "slopes_against_dense": [...],
// "left_out"}.
nlohmann::json scale_json(const ScaleStudy& study, const ScaleResult& result);
std::string scale_text(const ScaleStudy& study, const ScaleResult& result);
// Makes the folder `out` and writes report.html there; returns its path.
std::filesystem::path write_scale_page(const ScaleStudy& study, const ScaleResult& result,
                                       const std::string& out);

}  // namespace refract
