// model.safetensors.index.json, which says in which of several files a tensor lies. Nothing of
// torch is linked for it.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace refract {

// Tensor -> file beside the index. Fails, naming `path`, for what is no such index and for a name
// that leads out of its folder.
std::map<std::string, std::string> read_weight_map(std::string_view text,
                                                   const std::filesystem::path& path);

}  // namespace refract
