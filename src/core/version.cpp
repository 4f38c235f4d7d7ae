#include "core/version.h"

namespace refract {

const char* const kVersion = REFRACT_VERSION;  // from CMake

}  // namespace refract
