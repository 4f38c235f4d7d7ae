// The script of a report's page.
#pragma once

namespace refract {

// JavaScript, run after Plotly's: draws figures in the colours of the screen, chooses the ticks of
// logarithmic axes, works the controls and sorts tables.
extern const char* const kPageScript;

}  // namespace refract
