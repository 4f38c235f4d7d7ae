// The one definition of the library `refract`. Every op adds itself in its own file.
#include "ops/common/define.h"

TORCH_LIBRARY(refract, m) { static_cast<void>(m); }
