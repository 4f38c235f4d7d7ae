#include "core/system/hub_repository.h"

#include <fmt/format.h>

#include <cctype>
#include <string_view>
#include <system_error>

#include "core/files.h"
#include "core/paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

bool is_hub_id(std::string_view id) {
  const auto slash = id.find('/');
  const bool one_slash =
      slash == std::string_view::npos || id.find('/', slash + 1) == std::string_view::npos;
  return one_slash && slash != 0 && slash + 1 != id.size() && !id.empty() && id[0] != '.' &&
         id[0] != '~' &&
         id.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") ==
             std::string_view::npos;
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

}  // namespace

std::optional<HubRepository> parse_hub_repository(const std::string& text) {
  const size_t at = text.find('@');
  HubRepository repository;
  repository.id = text.substr(0, at);
  if (at != std::string::npos) repository.revision = text.substr(at + 1);
  if (!is_hub_id(repository.id) || repository.revision.empty() ||
      repository.revision.find("..") != std::string::npos)
    return std::nullopt;
  return repository;
}

std::optional<fs::path> find_snapshot(HubKind kind, const HubRepository& repository) {
  std::string folder = (kind == HubKind::kModel ? "models--" : "datasets--") + repository.id;
  if (const size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  const fs::path place = hub_cache() / folder;
  const fs::path reference = place / "refs" / repository.revision;
  std::error_code ignored;
  const std::string commit = fs::is_regular_file(reference, ignored)
                                 ? trimmed(read_file(reference, "the cached revision"))
                                 : repository.revision;
  fs::path snapshot = place / "snapshots" / commit;
  if (!fs::is_directory(snapshot, ignored)) return std::nullopt;
  return snapshot;
}

std::string hub_download(HubKind kind, const HubRepository& repository) {
  return fmt::format("hf download {}{}{}", kind == HubKind::kDataset ? "--repo-type dataset " : "",
                     repository.id,
                     repository.revision == "main" ? "" : " --revision " + repository.revision);
}

}  // namespace refract
