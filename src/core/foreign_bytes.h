// Files that are something else than their names say: what a Git LFS clone or a failed download
// leaves, archives, other programs' formats.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace refract {

// What a file is by its first bytes, and what to do about it: "a Git LFS pointer and not the file
// itself; fetch it with: git lfs pull". Empty where the bytes are no format known here. Formats are
// told by four bytes or more, so that token shards are not taken for one by chance.
std::string foreign_bytes(std::string_view head);

// The same for the two that stand in the place of any file: LFS pointers and HTML pages.
std::string stand_in(std::string_view head);

// Fails, naming `path`, where foreign_bytes() knows them; `wanted`: "a token shard".
void refuse_foreign_bytes(const std::filesystem::path& path, std::string_view head,
                          std::string_view wanted);

}  // namespace refract
