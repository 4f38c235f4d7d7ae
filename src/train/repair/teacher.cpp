#include "train/repair/teacher.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "core/error.h"
#include "formats/checkpoint.h"
#include "formats/hf_config.h"
#include "model/dense.h"
#include "ops/dense/loss/distillation.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

// FNV-1a over words of eight bytes.
class Fingerprint {
 public:
  void add(const at::Tensor& tensor) {
    const at::Tensor whole = tensor.contiguous();
    const auto* bytes = static_cast<const char*>(whole.const_data_ptr());
    const auto size = static_cast<size_t>(whole.nbytes());
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + at, std::min(sizeof word, size - at));
      value_ = (value_ ^ word) * 0x100000001b3ull;
    }
  }
  std::string text() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

void check_config(const ModelConfig& teacher, const Decoder& student, const fs::path& folder,
                  int64_t context) {
  if (teacher.vocab_size != student.config().vocab_size) {
    fail_usage(
        "the teacher '{}' has {} tokens and the model {}; [distill] compares their distributions "
        "of the next token, so both need one vocabulary",
        folder.string(), teacher.vocab_size, student.config().vocab_size);
  }
  if (teacher.longest() < context) {
    fail_usage("the teacher '{}' has {} positions, fewer than data.context = {}", folder.string(),
               teacher.longest(), context);
  }
}

// Every parameter of the teacher is among the folder's tensors.
void check_parameters(const Decoder& teacher, const CheckpointReader& reader) {
  for (const Parameter& p : teacher.arena().parameters()) {
    if (reader.contains(p.name) && reader.shape(p.name) == p.shape) continue;
    fail_usage(
        "the teacher '{}' has no dense '{}'; set distill.teacher to the folder of a dense model",
        reader.folder().string(), p.name);
  }
}

// Whether a student's frozen weight is what a teacher of its own would compute with.
bool equals(const at::Tensor& frozen, const at::Tensor& wanted) {
  return at::equal(frozen.cpu(), wanted.to(frozen.scalar_type()));
}

at::Tensor head_leaf(Decoder& model) {
  return model.arena().leaf(model.arena().find(head_of(model.plan()).name));
}

}  // namespace

Teacher::Teacher(Decoder& student, const fs::path& folder, int64_t context) : folder_(folder) {
  const CheckpointReader reader(folder);
  ModelConfig config = reader.config();
  resolve(config, 0, context);
  check_config(config, student, folder, context);
  model_ = std::make_unique<Decoder>(config, DenseFactory());
  check_parameters(*model_, reader);
  // A frozen value that equals the folder's stands for it, whatever kind of layer holds it.
  std::set<std::string> shared;
  Fingerprint fingerprint;
  for (const Parameter& p : model_->arena().parameters()) {
    const at::Tensor wanted = reader.read(p.name);
    fingerprint.add(wanted);
    const Parameter* own = student.arena().find(p.name);
    if (own && !own->trainable && own->shape == p.shape && own->padded_rows == p.padded_rows &&
        equals(student.arena().value(own), wanted))
      shared.insert(p.name);
    reader.release(p.name);
  }
  fingerprint_ = fingerprint.text();
  model_->allocate_beside(student, shared);
  model_->isolate_documents(student.document_token());
  for (const Parameter& p : model_->arena().parameters()) {
    if (p.borrowed) continue;
    model_->arena().value(&p).copy_(reader.read(p.name));
    reader.release(p.name);
  }
}

int64_t Teacher::own_parameters() const {
  int64_t count = 0;
  for (const Parameter& p : model_->arena().parameters()) count += p.borrowed ? 0 : p.numel();
  return count;
}

at::Tensor Teacher::loss(Decoder& student, const ForwardContext& context,
                         const at::Tensor& tokens_BT, const at::Tensor& targets_BT,
                         const RunConfig::Distill& settings) {
  at::Tensor states;
  {
    const at::NoGradGuard no_grad;
    ForwardContext plain;
    plain.weights_changed = false;
    states = model_->hidden(plain, tokens_BT);
  }
  return linear_distillation(student.hidden(context, tokens_BT), head_leaf(student), targets_BT,
                             states, head_leaf(*model_), model_->plan().tokens.rows,
                             settings.temperature, settings.weight);
}

}  // namespace refract
