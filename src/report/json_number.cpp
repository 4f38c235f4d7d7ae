#include "report/json_number.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace refract {

nlohmann::json json_number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

}  // namespace refract
