#include "transforms/media/number_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "core/error.h"

namespace refract {
namespace {

constexpr std::array<std::string_view, 4> kRoundings = {"even", "away", "zero", "stochastic"};

// "e4m3" -> {4, 3}.
std::optional<NumberFormat> minifloat(const std::string& name) {
  if (name.size() != 4 || name[0] != 'e' || name[2] != 'm') return std::nullopt;
  NumberFormat f;
  f.exponent_bits = name[1] - '0';
  f.mantissa_bits = name[3] - '0';
  if (f.exponent_bits < 1 || f.mantissa_bits < 1 || f.exponent_bits + f.mantissa_bits > 7)
    return std::nullopt;
  const int64_t bias = (int64_t{1} << (f.exponent_bits - 1)) - 1;
  const int64_t greatest = (int64_t{1} << f.exponent_bits) - 1 - bias;
  f.max =
      std::ldexp(2 - std::ldexp(1, static_cast<int>(-f.mantissa_bits)), static_cast<int>(greatest));
  if (name == "e4m3") f.max = 448;
  if (name == "e5m2") f.max = 57344;
  return f;
}

}  // namespace

std::optional<NumberFormat> number_format(const std::string& name, const std::string& where) {
  if (name == "none") return std::nullopt;
  if (name == "int8") return NumberFormat{0, 6, 127.0 / 64};
  const auto found = minifloat(name);
  if (!found) {
    fail_usage(
        "{}: \"{}\" is not a number format; known are e4m3, e5m2, e2m3, e3m2, e2m1 and others like "
        "them of up to 8 bits, int8 and none",
        where, name);
  }
  return found;
}

int64_t rounding_mode(const std::string& name) {
  return std::find(kRoundings.begin(), kRoundings.end(), name) - kRoundings.begin();
}

}  // namespace refract
