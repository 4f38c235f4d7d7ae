// TensorBoard event files, written without TensorFlow or protobuf: the few messages a training run
// needs are encoded here. Format: a TFRecord file of `tensorflow.Event` messages
// (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto).
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "report/append_file.h"
#include "report/metrics.h"

namespace refract {

// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of RFC 3720, and TFRecord's masking of it.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

// Scalars of a run for TensorBoard (and, by `wandb sync`, for Weights & Biases).
class TensorBoardWriter {
 public:
  // Makes a new event file in `folder`, which is made if missing. Event files can't be rewritten
  // while TensorBoard reads them, so a resumed run adds a file and starts it with a SessionLog
  // START event whose step is `resume_step` + 1: TensorBoard then hides what older files hold from
  // that step on, and each step is drawn once. The files are named by time and read in the order of
  // their names; the name is moved on when an older file has the same second.
  explicit TensorBoardWriter(const std::filesystem::path& folder,
                             int64_t resume_step = MetricsLog::kFresh);

  // One event with all values. TensorBoard keeps them as float32; a '/' in a name makes groups.
  // The event is with the system when the call returns; throws Error when the disk is full.
  void write(int64_t step, MetricValues values);

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace refract
