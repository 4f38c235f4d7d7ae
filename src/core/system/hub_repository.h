// Repositories in the Hugging Face cache, as huggingface_hub lays them out:
// models--org--name/{refs/main, snapshots/<commit>/<file>}, and datasets--org--name alike.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace refract {

enum class HubKind { kModel, kDataset };

struct HubRepository {
  std::string id;  // "org/name", or "name" for an old one
  std::string revision = "main";
};

// "org/name", "org/name@revision"; nothing for a text that can name no repository.
std::optional<HubRepository> parse_hub_repository(const std::string& text);

// The folder of the revision's files in hub_cache(), which holds what was downloaded of them;
// nothing where there is none.
std::optional<std::filesystem::path> find_snapshot(HubKind kind, const HubRepository& repository);

// The command that downloads it: "hf download org/name".
std::string hub_download(HubKind kind, const HubRepository& repository);

}  // namespace refract
