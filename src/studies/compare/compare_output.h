// The files of `refract compare`.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "report/table.h"
#include "studies/compare/compare.h"

namespace refract {

// Makes the folder. Fails (usage) where that can't be.
void prepare_compare_folder(const std::filesystem::path& folder);
// compare.json, compare.csv and report.html.
void write_comparison(const CompareResult& result, const std::filesystem::path& folder);

// Perplexities before and after repair beside the first row's, energy, speed, culprits.
Table compare_table(const CompareResult& result);
nlohmann::json compare_json(const CompareResult& result);

}  // namespace refract
