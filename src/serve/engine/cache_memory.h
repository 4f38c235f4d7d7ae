// How much memory a server's caches take, known before they are allocated.
#pragma once
#include <cstdint>
#include <optional>

#include "model/decoder.h"

namespace refract {

// Bytes of the keys and values of `slots` sequences of `context` tokens each.
double cache_bytes(const Decoder& model, int64_t slots, int64_t context);

// Bytes that this process may still take: what the system calls available, or the rest of its
// control group's limit where that is less. None where the system does not say.
std::optional<double> free_memory();

// The error of caches that do not fit: one line with their size, what is free, and the options to
// make less of it (--slots, --context).
[[noreturn]] void fail_for_caches(const Decoder& model, int64_t slots, int64_t context);

// Fails so where the model is on the CPU and the caches are larger than free_memory(). A GPU says
// it when they are allocated.
void check_cache_memory(const Decoder& model, int64_t slots, int64_t context);

}  // namespace refract
