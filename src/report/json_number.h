// Numbers that may not be finite, in JSON, which has no word for them.
#pragma once
#include <nlohmann/json_fwd.hpp>

namespace refract {

// null where the value is not finite.
nlohmann::json json_number(double value);

}  // namespace refract
