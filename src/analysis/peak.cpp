#include "analysis/peak.h"

#include <algorithm>
#include <array>

namespace refract {
namespace {

struct Peak {
  std::string_view part;          // must occur in the driver's name for the device
  std::string_view variant;       // must occur too, where not empty
  double fp32, tf32, bf16, fp16;  // 1e12 operations per second, dense; 0: not supported
};

// The first entry that fits decides, so variants stand before the plain name. Data sheets print
// tensor-core figures with sparsity, twice these. Products accumulate in fp32. GeForce and
// workstation cards: from the architecture white papers' tables.
constexpr std::array kPeaks{
    // "NVIDIA HGX B200" data sheet, per GPU.
    Peak{"B200", "", 75, 1125, 2250, 2250},
    // "NVIDIA H200 Tensor Core GPU" data sheet.
    Peak{"H200", "NVL", 60, 417.5, 835.5, 835.5},
    Peak{"GH200", "", 67, 494.5, 989.5, 989.5},
    Peak{"H200", "", 67, 494.5, 989.5, 989.5},
    // "NVIDIA H100 Tensor Core GPU" data sheet; SXM reports itself as "NVIDIA H100 80GB HBM3".
    Peak{"H100", "NVL", 60, 417.5, 835.5, 835.5},
    Peak{"H100", "PCIe", 51, 378, 756, 756},
    Peak{"H100", "", 67, 494.5, 989.5, 989.5},
    // "NVIDIA A100 Tensor Core GPU" data sheet, the same for SXM and PCIe.
    Peak{"A100", "", 19.5, 156, 312, 312},
    // "NVIDIA L40S", "NVIDIA L40" and "NVIDIA L4" data sheets.
    Peak{"L40S", "", 91.6, 183, 362, 362},
    Peak{"L40", "", 90.5, 90.5, 181, 181},
    Peak{"L4", "", 30.3, 60, 121, 121},
    // "NVIDIA A40", "NVIDIA RTX A6000" and "NVIDIA A10" data sheets.
    Peak{"A40", "", 37.4, 74.8, 149.7, 149.7},
    Peak{"RTX A6000", "", 38.7, 77.4, 154.8, 154.8},
    Peak{"A10", "", 31.2, 62.5, 125, 125},
    // "NVIDIA Ada GPU Architecture" and "NVIDIA Ampere GA102 GPU Architecture" white papers.
    Peak{"RTX 4090", "", 82.6, 82.6, 165.2, 165.2},
    Peak{"RTX 3090", "", 35.6, 35.6, 71, 71},
    // "NVIDIA T4" and "NVIDIA V100" data sheets; neither has bf16 or TF32. V100: SXM2's figures.
    Peak{"T4", "", 8.1, 0, 0, 65},
    Peak{"V100", "PCIE", 14, 0, 0, 112},
    Peak{"V100", "", 15.7, 0, 0, 125},
};

bool is_word(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

// As a whole word, so that "L4" is not found in "L40" nor "A10" in "A100" or "A10G".
bool has_word(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end]))) {
      return true;
    }
  }
  return false;
}

double pick(const Peak& peak, Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kFp32:
      return peak.fp32;
    case Arithmetic::kTf32:
      return peak.tf32;
    case Arithmetic::kBf16:
      return peak.bf16;
    case Arithmetic::kFp16:
      return peak.fp16;
  }
  return 0;
}

}  // namespace

std::optional<double> peak_flops(std::string_view device_name, Arithmetic arithmetic) {
  // A laptop's chip has the desktop card's name and much less power; none is in the table.
  if (has_word(device_name, "Laptop")) return std::nullopt;
  const auto found = std::ranges::find_if(kPeaks, [&](const Peak& peak) {
    return has_word(device_name, peak.part) &&
           (peak.variant.empty() || has_word(device_name, peak.variant));
  });
  if (found == kPeaks.end()) return std::nullopt;
  const double peak = pick(*found, arithmetic);
  return peak > 0 ? std::optional(peak * 1e12) : std::nullopt;
}

std::optional<double> model_flops_utilization(double tokens_per_second,
                                              double training_flops_per_token,
                                              std::string_view device_name, Arithmetic arithmetic,
                                              int devices) {
  const auto peak = peak_flops(device_name, arithmetic);
  if (!peak || devices < 1) return std::nullopt;
  return tokens_per_second * training_flops_per_token / (*peak * devices);
}

}  // namespace refract
