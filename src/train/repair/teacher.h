// Distillation: a model learns the distribution of a dense model's next tokens beside the tokens
// themselves ([distill]; Hinton et al., arXiv 1503.02531). The loss of a token is
//   (1 - w) CE + w T^2 KL(teacher at temperature T || model at temperature T).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "model/decoder.h"
#include "train/run_config.h"

namespace refract {

// A dense model that never changes. Its parameters are the student's own where the student holds
// the same values frozen (the layers below adapters, all but norms where norms alone are trained):
// then it costs a forward pass and no second model.
class Teacher {
 public:
  // The weights of a folder, as a dense model. The student is allocated and holds its starting
  // weights; it must outlive the teacher. Fails (usage) for another vocabulary, for fewer positions
  // than `context`, and for a folder without all dense weights.
  Teacher(Decoder& student, const std::filesystem::path& folder, int64_t context);

  // The loss of tokens [B, T], summed over targets, with gradients for the student.
  at::Tensor loss(Decoder& student, const ForwardContext& context, const at::Tensor& tokens_BT,
                  const at::Tensor& targets_BT, const RunConfig::Distill& settings);

  const Decoder& model() const { return *model_; }
  const std::filesystem::path& folder() const { return folder_; }
  // Numbers that it holds itself, and does not share with the student.
  int64_t own_parameters() const;
  // Of all its weights, for runs that are resumed: another text for other weights.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  std::filesystem::path folder_;
  std::unique_ptr<Decoder> model_;
  std::string fingerprint_;
};

}  // namespace refract
