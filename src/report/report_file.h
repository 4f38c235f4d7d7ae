// One HTML file about a run, a sweep or several runs.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace refract {

struct ReportFile {
  std::filesystem::path path;
  std::vector<std::filesystem::path> runs;  // that it is about
};

// Writes it to `out`; where that is empty, report.html of the folder, or for several paths
// report.html of the current one. A path is a run, a sweep, or a folder of runs; an error (usage)
// where it holds none, and for the folder of an analysis, whose own report would be lost.
ReportFile write_report(const std::vector<std::string>& paths, const std::filesystem::path& out);

// The runs that a path stands for: itself, or those in its folders. Error (usage) where there are
// none.
std::vector<std::filesystem::path> runs_in(const std::filesystem::path& path);

}  // namespace refract
