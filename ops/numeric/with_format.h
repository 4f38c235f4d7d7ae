// A format's rounding and scaling as constants of a template.
#pragma once
#include <type_traits>

#include "ops/numeric/format_math.h"

namespace refract::numeric {

// f(std::integral_constant<Rounding, ...>).
template <class F>
void with_rounding(Rounding rounding, F&& f) {
  switch (rounding) {
    case Rounding::kEven:
      return f(std::integral_constant<Rounding, Rounding::kEven>{});
    case Rounding::kAway:
      return f(std::integral_constant<Rounding, Rounding::kAway>{});
    case Rounding::kZero:
      return f(std::integral_constant<Rounding, Rounding::kZero>{});
    default:
      return f(std::integral_constant<Rounding, Rounding::kStochastic>{});
  }
}

// f(rounding, scaling) as constants; symmetric scales by a float are one case.
template <class F>
void with_format(const Element& e, F&& f) {
  with_rounding(e.rounding, [&](auto rounding) {
    switch (e.scaling) {
      case Scaling::kNone:
        return f(rounding, std::integral_constant<Scaling, Scaling::kNone>{});
      case Scaling::kPower:
        return f(rounding, std::integral_constant<Scaling, Scaling::kPower>{});
      case Scaling::kLimits:
        return f(rounding, std::integral_constant<Scaling, Scaling::kLimits>{});
      default:
        return f(rounding, std::integral_constant<Scaling, Scaling::kLargest>{});
    }
  });
}

}  // namespace refract::numeric
