// Trains a recipe: all of `refract train` but its arguments and its last words.
#pragma once
#include <string>
#include <vector>

#include "train/trainer.h"

namespace refract {

struct TrainedRun {
  std::string folder;  // run.dir
  RunResult result;    // not finished where a signal stopped it
  bool speaks = true;  // false: one of several processes, of which another tells how it went
};

// Opens the recipe's data and model, trains, and writes the run's folder with its report. With
// `resume` it goes on from the newest checkpoint in the folder; without it a folder that holds a
// run is an error (usage). Where the environment says so (distributed/ranks.h) this process is one
// of several that train it together.
TrainedRun train_recipe(const std::string& recipe, const std::vector<std::string>& overrides,
                        bool resume);

}  // namespace refract
