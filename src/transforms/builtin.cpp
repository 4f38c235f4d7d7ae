#include "transforms/builtin.h"

#include "transforms/kinds/block_dense.h"
#include "transforms/kinds/block_shuffle.h"
#include "transforms/kinds/lora.h"
#include "transforms/kinds/low_rank.h"
#include "transforms/kinds/optical.h"

namespace refract {

std::vector<KindEntry> builtin_kinds() {
  return {
      {"block_dense", "a block diagonal factor and a dense one: U (V_b x)", make_block_dense},
      {"block_shuffle", "two block diagonal factors with a shuffle between them (Monarch)",
       make_block_shuffle},
      {"low_rank", "two factors with a small inner width: U (V x)", make_low_rank},
      {"lora", "low-rank adapters beside a frozen layer of any kind", make_lora},
      {"optical", "simulated optical compute: quantized operands, noisy quantized outputs",
       make_optical},
  };
}

}  // namespace refract
