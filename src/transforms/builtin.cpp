#include "transforms/builtin.h"

#include "transforms/lora.h"

namespace refract {

std::vector<KindEntry> builtin_kinds() {
  return {
      {"lora", "low-rank adapters beside a frozen layer of any kind", make_lora},
  };
}

}  // namespace refract
