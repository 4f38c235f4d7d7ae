// Paths as people write them, and the folders that programs on a machine share.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace refract {

// `path` with a leading ~ or ~user as the home folder and $NAME and ${NAME} as the environment's
// variables, for places that no shell expands: recipes, key=value, --option=value. A path that
// exists as it is written stays so, unless it begins with ~. Fails (usage) for a variable that is
// not set and a user that does not exist.
std::string expand_path(const std::string& path);

// $XDG_CACHE_HOME, else ~/.cache. Fails where there is no home folder.
std::filesystem::path user_cache();

// Where the Hugging Face cache keeps repositories, by the variables that huggingface_hub reads:
// HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else `hub` in HF_HOME, else in `huggingface` of
// user_cache(). ~ and variables in them are expanded as Python does it: what is not set stays.
std::filesystem::path hub_cache();

// Where `name` lies in the folder above the program's own, into which `make install`, `make dist`
// and the wheel put what belongs to it ("recipes/demo.toml"). Empty where there is no such file.
std::filesystem::path installed_file(const std::string& name);

// A word as a shell takes it back: in quotes where it needs them.
std::string shell_word(std::string_view text);

}  // namespace refract
