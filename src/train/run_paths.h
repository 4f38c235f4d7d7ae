// The settings that name files and folders.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace refract {

struct RunConfig;

// What a run's folder remembers beside its settings: its corpus, and the folder that the relative
// paths of its settings start from (runs/resume/run_corpus.h writes it).
inline constexpr const char* kCorpusRecord = "corpus.json";

// ~ and variables in the paths of a tree of settings, see expand_path(). Fails (usage) for a path
// that is empty where one is needed, as a variable that is not set leaves it.
void expand_setting_paths(nlohmann::json& tree);

// Of settings read from the file `config`: where that is a run's config.toml, relative paths are
// those of the folder that the run was started in, and a tokenizer that came with the model is not
// named.
void restore_saved_settings(nlohmann::json& tree, const std::filesystem::path& config);

// The folder that the relative paths of a run start from, by its record; empty where it has none.
// It stays for as long as the run, since every checkpoint holds settings.
std::filesystem::path origin_of(const std::filesystem::path& run);

// Paths of the current folder, made good for any.
void make_paths_absolute(RunConfig& config);

}  // namespace refract
