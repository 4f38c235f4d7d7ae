// Small arithmetic in settings: "22*N/100" over named values.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

namespace refract {

// Evaluates numbers, names, + - * / and parentheses. Errors show the expression and the place.
double evaluate_expression(std::string_view text,
                           const std::vector<std::pair<std::string_view, double>>& names);

}  // namespace refract
