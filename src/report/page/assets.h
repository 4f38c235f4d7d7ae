// The style and the script of a report's page.
#pragma once

namespace refract {

extern const char* const kPageStyle;  // CSS
extern const char* const
    kPageScript;  // JavaScript, run after Plotly's: draws figures, sorts tables

}  // namespace refract
