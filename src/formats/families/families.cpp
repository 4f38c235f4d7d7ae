#include "formats/families/families.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/untrusted.h"
#include "formats/families/gpt2.h"
#include "formats/families/gpt_neox.h"
#include "formats/families/llama.h"

namespace refract {
namespace {

constexpr Family kFamilies[] = {
    {"gpt2", "GPT-2", from_gpt2, to_gpt2, against_gpt2, gpt2_layout, gpt2_names},
    {"llama", "Llama", from_llama, to_llama, against_llama, llama_layout, llama_names},
    {"mistral", "Mistral", from_mistral, to_mistral, against_mistral, llama_layout, llama_names},
    {"qwen2", "Qwen2", from_qwen2, to_qwen2, against_qwen2, llama_layout, llama_names},
    {"qwen3", "Qwen3", from_qwen3, to_qwen3, against_qwen3, llama_layout, llama_names},
    {"gpt_neox", "GPT-NeoX", from_gpt_neox, to_gpt_neox, against_gpt_neox, gpt_neox_layout,
     gpt_neox_names},
};

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family* find_family(std::string_view type) {
  const auto found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                  [&](const Family& family) { return type == family.type; });
  return found == std::end(kFamilies) ? nullptr : found;
}

const Family& family_named(std::string_view type) {
  const Family* family = find_family(type);
  if (!family) {
    fail_usage("a model can't be saved as \"{}\"; the formats are auto, {}, refract", shown(type),
               family_types());
  }
  return *family;
}

std::string family_types() {
  std::string all;
  for (const Family& family : kFamilies) {
    if (!all.empty()) all += ", ";
    all += family.type;
  }
  return all;
}

}  // namespace refract
