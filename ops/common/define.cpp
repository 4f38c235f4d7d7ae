// The one definition of the library `refract`. Every op adds itself in its own file.
#include "ops/common/define.h"

#include <string>

TORCH_LIBRARY(refract, m) { static_cast<void>(m); }

namespace refract::op_detail {

c10::OperatorHandle find_op(const char* name) {
  const std::string full = std::string("refract::") + name;
  return c10::Dispatcher::singleton().findSchemaOrThrow(full.c_str(), "");
}

}  // namespace refract::op_detail
