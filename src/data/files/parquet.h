// Parquet files, one document a row.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "data/parquet/engine.h"

namespace refract {

// The column of that name, "text" or "meta.text" for a value inside a structure. Memory holds a
// page of it at a time. Fails, naming the file, for one that can't be read, is no Parquet file, is
// cut off, damaged or encrypted, and for a column that is missing (saying which there are), holds
// lists or no text.
std::unique_ptr<TextRows> open_parquet(const std::filesystem::path& file,
                                       const std::string& column);

}  // namespace refract
