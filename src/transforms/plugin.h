// Kinds from outside the tree: a plug-in is one source file, compiled by scripts/plugin and given
// to the program with --plugin. docs/new-transform.md builds one.
//
//     REFRACT_PLUGIN {
//       register_kind<Noisy>("noisy", "a dense layer with Gaussian noise on its output");
//     }
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transforms/kind.h"

// Once in a plug-in; the block that follows registers its kinds. Registration is a function, not a
// static initialiser, because an error can't be caught across dlopen().
#define REFRACT_PLUGIN                                                       \
  extern "C" const char* refract_plugin_abi() { return REFRACT_PLUGIN_ABI; } \
  extern "C" void refract_register()

namespace refract {

template <class T>
void register_kind(std::string name, std::string summary) {
  register_kind({std::move(name), std::move(summary),
                 []() -> std::unique_ptr<Kind> { return std::make_unique<T>(); }});
}

// Opens a plug-in and registers its kinds; once per file, however often it is named. Fails (usage)
// for a file that is none, and for one that was compiled against other headers than this program.
void load_plugin(const std::string& path);

// Absolute paths of the plug-ins opened so far, for processes that this one starts.
const std::vector<std::string>& loaded_plugins();

}  // namespace refract
