// The one definition of the library `refract`. Every op adds its schema with TORCH_LIBRARY_FRAGMENT
// in its own file.
#include <torch/library.h>

TORCH_LIBRARY(refract, m) { static_cast<void>(m); }
