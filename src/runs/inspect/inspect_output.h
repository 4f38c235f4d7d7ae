// What `refract inspect` says of an inspection.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runs/inspect/inspect.h"

namespace refract {

nlohmann::json inspection_json(const Inspection& found);
// Tables and lines for a person.
std::string inspection_text(const Inspection& found);

}  // namespace refract
