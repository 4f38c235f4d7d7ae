// Plays a run that is killed at step 50, resumed from its checkpoint of step 30, and ends at step
// 60:
//     tensorboard_probe FOLDER
#include <cmath>
#include <cstdio>

#include "report/tensorboard.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: tensorboard_probe FOLDER\n", stderr);
    return 2;
  }
  const auto write = [](refract::TensorBoardWriter& writer, int64_t step, double loss) {
    const std::pair<std::string_view, double> values[] = {{"train/loss", loss},
                                                          {"train/perplexity", std::exp(loss)}};
    writer.write(step, values);
  };
  {
    refract::TensorBoardWriter writer(argv[1]);
    for (int64_t step = 10; step <= 50; step += 10)
      write(writer, step, 1.0 / static_cast<double>(step));
    write(writer, int64_t{1} << 40, NAN);  // a step of many varint bytes; purged by the resume
  }
  refract::TensorBoardWriter writer(argv[1], 30);
  for (int64_t step = 40; step <= 60; step += 10) write(writer, step, 2.0);
  return 0;
}
