// Peak arithmetic of known GPUs and model FLOPs utilization (MFU).
#pragma once
#include <optional>
#include <string_view>

namespace refract {

// The number format of the matrix products. fp32 products run as kTf32 where the program allows it.
enum class Arithmetic { kFp32, kTf32, kBf16, kFp16 };

// Dense (no sparsity) peak in operations per second of a device by the name its driver reports
// ("NVIDIA H100 80GB HBM3"), or nothing for a device or format that the table does not know: a
// figure against a guessed peak would mislead. Values are NVIDIA's published ones; peak.cpp names
// the data sheets.
std::optional<double> peak_flops(std::string_view device_name, Arithmetic arithmetic);

// Achieved over peak: tokens/s x training operations per token / (peak x devices). Nothing where
// the peak is unknown.
std::optional<double> model_flops_utilization(double tokens_per_second,
                                              double training_flops_per_token,
                                              std::string_view device_name, Arithmetic arithmetic,
                                              int devices = 1);

}  // namespace refract
