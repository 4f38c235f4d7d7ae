#include "report/page/plotly.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// The plotly wheel of a virtual environment; empty where it isn't installed.
fs::path in_environment(const fs::path& venv) {
  std::error_code ignored;
  for (const auto& python : fs::directory_iterator(venv / "lib", ignored)) {
    const fs::path file = python.path() / "site-packages/plotly/package_data/plotly.min.js";
    if (fs::exists(file, ignored)) return file;
  }
  return {};
}

fs::path find_plotly() {
  if (const char* given = std::getenv("REFRACT_PLOTLY"); given && *given) {
    if (!fs::exists(given)) fail_usage("REFRACT_PLOTLY = '{}': no such file", given);
    return given;
  }
  if (fs::path beside = installed_file("share/refract/plotly.min.js"); !beside.empty())
    return beside;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  for (fs::path folder = program.parent_path(); folder.has_relative_path();
       folder = folder.parent_path()) {
    if (const fs::path found = in_environment(folder / ".venv"); !found.empty()) return found;
  }
  fail(
      "the report needs Plotly's JavaScript and found none: run scripts/bootstrap in the checkout, "
      "or set REFRACT_PLOTLY to a plotly.min.js (the wheel 'plotly' has one in package_data/)");
}

}  // namespace

std::string plotly_script() {
  const fs::path path = find_plotly();
  const std::string script = read_file(path, "Plotly's JavaScript");
  // It goes into a <script> element, which this would end.
  if (script.empty() || script.find("</script") != std::string::npos) {
    fail("'{}' is not a Plotly script that can be written into a page", path.string());
  }
  return script;
}

}  // namespace refract
