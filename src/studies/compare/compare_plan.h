// The file of media that `refract compare` measures a model in.
//
//     [repair]                      # training of every row that says nothing else; may be left out
//     steps = 300                   # "train.steps"; any setting of a recipe, in its table
//     [[row]]
//     name = "256 levels, fine"
//     kind = { kind = "optical", q_x_per = "token" }   # or rules = "FILE", or transform = [...]
//     calibrate = "mse"             # ranges from the repair's text first; may be left out
//     repair = false                # or a table with other settings than [repair]'s
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "studies/media/medium_rules.h"

namespace refract {

struct CompareRow {
  std::string name;
  std::string folder;     // of its files, below the comparison's
  MediumChoice medium;    // none: the model without rules
  std::string transform;  // or rules as JSON
  std::string calibrate;  // a method of `refract calibrate`; empty: none
  std::string repair;     // settings of a recipe as JSON; empty: no repair
};

struct ComparePlan {
  std::vector<CompareRow> rows;  // the first is the model without a medium
};

// A row "dense" without a medium is put before the others where none has no medium. Fails (usage)
// for a file that is not of this form, names that are equal or empty, and a repair without text or
// steps.
ComparePlan read_compare_plan(const std::filesystem::path& file);

// Overrides of a row for load_model() and a recipe.
std::vector<std::string> row_overrides(const CompareRow& row,
                                       const std::vector<std::string>& overrides);

}  // namespace refract
