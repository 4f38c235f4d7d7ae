// Kinds from outside the tree: a plug-in is one source file that ends with REFRACT_KIND
// (transforms/kind.h), compiled by scripts/plugin and given to the program with --plugin.
// docs/new-transform.md builds one.
#pragma once
#include <string>
#include <vector>

#include "transforms/kind.h"

namespace refract {

// Opens a plug-in and registers its kinds; once per file, however often it is named. Fails (usage)
// for a file that is not a plug-in, and for one that was compiled against other headers than this
// program; nothing of it runs then.
void load_plugin(const std::string& path);

// Absolute paths of the plug-ins opened so far, for processes that this one starts.
const std::vector<std::string>& loaded_plugins();

}  // namespace refract
