// The loss of a model on a text, in a program of your own: ./loss MODEL TEXT [key=value...]
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <core/error.h>
#include <model/decoder.h>
#include <runs/loaded_model.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace {

// Mean nats over all tokens of the text but the first.
double loss_of(refract::LoadedModel& loaded, const std::string& text) {
  std::vector<refract::TokenId> ids = loaded.tokenizer->encode(text);
  const size_t most = loaded.model->config().max_position_embeddings + 1;
  ids.resize(std::min(ids.size(), most));
  if (ids.size() < 2) refract::fail_usage("a text of at least two tokens is needed");
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = at::tensor(ids, at::kInt).to(loaded.model->device()).unsqueeze(0);
  const int64_t predicted = tokens.size(1) - 1;
  const auto loss = loaded.model->loss({}, tokens.narrow(1, 0, predicted).contiguous(),
                                       tokens.narrow(1, 1, predicted).contiguous());
  return loss.sum.item<double>() / static_cast<double>(predicted);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: loss MODEL TEXT [key=value...]\n", stderr);
    return 2;
  }
  try {
    refract::LoadedModel loaded = refract::load_model(argv[1], {argv + 3, argv + argc});
    std::printf("%.6f nats per token\n", loss_of(loaded, argv[2]));
    return 0;
  } catch (const refract::Error& error) {
    std::fprintf(stderr, "loss: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
