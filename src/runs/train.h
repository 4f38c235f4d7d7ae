// Trains a recipe: all of `refract train` but its arguments and its last words.
#pragma once
#include <string>
#include <vector>

#include "train/trainer.h"

namespace refract {

struct TrainedRun {
  std::string folder;  // run.dir
  RunResult result;    // not finished where a signal stopped it
  std::string report;  // the page with its curves; empty where it could not be written
  bool speaks = true;  // false: one of several processes, of which another tells how it went
};

// Opens the recipe's data and model, trains, and writes the run's folder with its report. With
// `resume` it goes on from the newest checkpoint in the folder, and says so where there is none;
// `recipe` may then be the folder of a run, whose own settings are used. Without it a folder that
// holds a run is an error (usage). Everything is checked before anything is written to the folder:
// the settings and the corpus against those of the run, and that no other process trains it.
// Where the environment says so (distributed/ranks.h) this process is one of several that train it
// together.
TrainedRun train_recipe(const std::string& recipe, const std::vector<std::string>& overrides,
                        bool resume);

}  // namespace refract
