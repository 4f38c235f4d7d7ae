#include "studies/study_folder.h"

#include <system_error>

#include "core/error.h"
#include "report/run_record.h"

namespace refract {
namespace {

std::filesystem::path make_study_folder(const std::string& out) {
  if (is_run(out))
    fail_usage("--out {} is a run, whose report.html would be lost; choose another folder", out);
  std::error_code error;
  if (!out.empty()) std::filesystem::create_directories(out, error);
  if (out.empty() || error) {
    fail_usage("--out: can't make the folder '{}'{}{}", out, error ? ": " : "",
               error ? error.message() : "");
  }
  return out;
}

}  // namespace

StudyFolder::StudyFolder(const std::string& out)
    : path_(make_study_folder(out)),
      lock_(path_, "is being written by another process; wait for it, or choose another --out") {}

}  // namespace refract
