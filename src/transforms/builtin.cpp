#include "transforms/builtin.h"

#include "transforms/lora.h"
#include "transforms/optical.h"

namespace refract {

std::vector<KindEntry> builtin_kinds() {
  return {
      {"lora", "low-rank adapters beside a frozen layer of any kind", make_lora},
      {"optical", "simulated optical compute: quantized operands, noisy quantized outputs",
       make_optical},
  };
}

}  // namespace refract
