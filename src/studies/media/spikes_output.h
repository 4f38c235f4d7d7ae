// The files of `refract spikes`.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "report/table.h"
#include "studies/media/spikes.h"

namespace refract {

// Steps that are powers of two, the one that is within 1%, and the last.
Table spikes_table(const SpikesResult& result);
// Operand by operand.
Table spikes_by_type(const SpikesResult& result);
// A few lines: the quantized model, and how many steps lead to it.
std::string spikes_summary(const SpikesResult& result);
nlohmann::json spikes_json(const SpikesResult& result);
void write_spikes(const SpikesResult& result, const std::string& out);

}  // namespace refract
