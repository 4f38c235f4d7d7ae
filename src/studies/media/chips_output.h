// The files of `refract chips`.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "report/table.h"
#include "studies/media/chips.h"

namespace refract {

// chips.json, chips.csv and report.html.
void write_chips(const ChipsResult& result, const std::filesystem::path& folder);

Table chips_table(const ChipsResult& result);
nlohmann::json chips_json(const ChipsResult& result);

}  // namespace refract
