// The study of `refract compare`: one model in several media, before and after repair.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "studies/compare/compare_row.h"

namespace refract {

struct CompareStudy {
  CompareRequest request;
  std::string media;  // the file of rows
  std::string only;   // the name of a row: measure no other
  int64_t jobs = 1;   // rows side by side
};

struct CompareResult {
  std::vector<RowResult> rows;        // that are known, in the file's order
  std::vector<std::string> failures;  // "name: why", of rows that failed
  bool complete = false;              // every wanted row is known, its repair included
};

// Measures what the folder does not hold yet, row by row or `jobs` of them side by side (each a
// process of its own, on a GPU of its own where there are several), and writes compare.json,
// compare.csv and report.html into it whenever a row is known. A signal ends it after what is being
// trained was saved; the same call goes on. A row that fails is named at the end, and the others
// are measured. Fails (usage) for a file of rows that is wrong, and without texts.
CompareResult compare(const CompareStudy& study);

// Arguments of `refract` that measure one row of the study.
std::vector<std::string> compare_arguments(const CompareStudy& study, const std::string& row);

}  // namespace refract
