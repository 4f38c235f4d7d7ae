// Checkpoints that are written while training goes on (train.save = "async").
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "model/decoder.h"
#include "train/step.h"

namespace refract {

class BackgroundSave {
 public:
  // Writes a checkpoint of this model and state; returns its folder.
  using Write = std::function<std::filesystem::path(Decoder&, const OptimizerState&)>;
  struct Saved {
    int64_t step = 0;
    std::filesystem::path folder;
  };

  // copy: the run's model once more, allocated on the CPU. It holds what is being written.
  explicit BackgroundSave(std::unique_ptr<Decoder> copy) : copy_(std::move(copy)) {}
  ~BackgroundSave();  // waits
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  // Copies weights, ranges and state, which waits for the device, and writes the copy in another
  // thread. The save before has to be taken.
  void start(int64_t step, Decoder& model, const OptimizerState& state, Write write);
  // The save that was started last, once it is done; nothing where it is not, or was taken. `wait`
  // waits for it. Throws what writing it threw.
  std::optional<Saved> take(bool wait);

 private:
  std::unique_ptr<Decoder> copy_;
  OptimizerState state_;
  Saved saved_;
  std::exception_ptr error_;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace refract
