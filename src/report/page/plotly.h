// Where Plotly's JavaScript comes from.
#pragma once
#include <string>

namespace refract {

// Plotly's JavaScript: the file in REFRACT_PLOTLY, else share/refract/plotly.min.js beside the
// program's bin folder, else that of the plotly wheel in .venv of the checkout that holds the
// program. Error where there is none, saying what to do.
std::string plotly_script();

}  // namespace refract
