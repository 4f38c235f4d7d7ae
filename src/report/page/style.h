// The style of a report's page.
#pragma once

namespace refract {

extern const char* const kPageStyle;  // CSS

}  // namespace refract
