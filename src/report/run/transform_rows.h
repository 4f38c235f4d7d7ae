// What the rules of a run did, as its transforms.toml says.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

// A rule with what it did; an empty `kind`: the layers that were left alone.
struct TransformRow {
  std::string match, kind;
  int64_t modules = 0, dense_parameters = 0, parameters = 0;
};

// None where the file is missing. Error where it is no TOML.
std::vector<TransformRow> read_transform_rows(const std::filesystem::path& path);

}  // namespace refract
