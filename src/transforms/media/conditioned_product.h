// What makes a medium's product easier without changing it: x T and W T^-T in place of x and W, or
// a part of the product computed digitally. Exact in dense arithmetic.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "model/slots.h"
#include "transforms/media/medium_product.h"

namespace refract {

struct Conditioning {
  // smooth: x / s and W s for each input channel, s = max|x|^alpha / max|W|^(1 - alpha) (Xiao et
  // al.,
  //   "SmoothQuant", arXiv 2211.10438, equation 4).
  // hadamard: both turned by a randomized orthogonal transform (transforms/media/hadamard.h). With
  //   turn_outputs the weight's outputs are turned by another one, and what the medium gives is
  //   turned back: then no output channel stands out in what the medium quantizes.
  // split: the input channels with the largest elements are multiplied digitally (Dettmers et al.,
  //   "LLM.int8()", arXiv 2208.07339).
  // per_token: each token divided by its largest magnitude, its output multiplied by it.
  // per_channel: the same for each output channel of the weight.
  std::string method = "hadamard";
  double alpha = 0.5;
  int64_t channels = 0;  // of split; 0: one in a hundred
  int64_t seed = 0;      // of hadamard
  bool turn_outputs = false;
  bool learned = false;  // of hadamard: followed by a rotation that is trained
  int64_t block = 64;    // channels that the learned rotation mixes; 0: all
};

// Smooth and split keep max|x| of each input channel in the buffer "<name>.<method>_max", float
// [in], negative until it is set: by `refract calibrate`, or by training, which moves it by 0.9
// once a step. Where it is not set, an evaluation takes it from the data of the call. Learned
// rotations are the parameters "<name>.turn" and "<name>.turn_outputs"
// (transforms/media/learned_turn.h).
std::unique_ptr<MediumProduct> make_conditioned_product(Build build, const LinearSpec& spec,
                                                        const Conditioning& conditioning,
                                                        std::unique_ptr<MediumProduct> medium);

// The same for an attention: q and k turned alike in each head, v turned and the output turned
// back. All heads share a learned rotation, "<name>.turn".
std::unique_ptr<AttentionCore> make_conditioned_attention(Build build, const AttentionSpec& spec,
                                                          const Conditioning& conditioning,
                                                          std::unique_ptr<AttentionCore> medium);

// Channels that a learned rotation of this width mixes.
int64_t turned_block(const Conditioning& conditioning, int64_t width);

}  // namespace refract
