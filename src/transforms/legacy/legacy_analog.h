// Configurations of two other programs for in-memory computing, as rules of the kind "analog".
//
// NewComputeBench's YAML: `by: type` with `linear: config: {tile_type: ...}`, or `by: name` with a
// module's name in the place of `linear`. Tile types are "digital", "reram", "pcm" and "original"
// (left alone). Other types of modules do not occur here and are passed over. Where its code
// departs from what its keys say, the keys count (docs/media.md).
//
// aihwkit-lightning's YAML: a map `rpu_config` with the keys of its examples (forward_inp_res,
// modifier_std_dev, clip_sigma, input_range_enable, ...); what stands beside it is not read. A
// setting that the kind has no like for is refused by name.
#pragma once
#include <filesystem>
#include <string>

namespace refract {

// Whether the YAML file is one of these two. False for one that can't be read.
bool is_legacy_analog(const std::filesystem::path& path);

// Its rules as the JSON of a recipe's [[transform]] array. Fails (usage) with file and key.
std::string legacy_analog_rules(const std::filesystem::path& path);

}  // namespace refract
