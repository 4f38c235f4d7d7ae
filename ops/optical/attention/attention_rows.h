// The loops over one row of scores, of optical attention on the CPU. All in float; n is the number
// of keys that the row sees.
#pragma once
#include <cstdint>

#include "ops/optical/quantize/quantization_math.h"

namespace refract::optical {

struct ScoreRow {
  Quantizer q;
  float gain, row;  // score = gain product + row + column
};

// noise[j] = xi of key j in an even (odd = 0) or odd row, from the Philox blocks of its pair of
// rows: 16 words for 16 keys, see attention.h. n is a multiple of 16.
void patch_noise(const uint32_t* words, int odd, float* noise, int64_t n);
// The range of the scores.
Range seen_in_scores(const float* product, const float* column, int64_t n, const ScoreRow& a);
// Products to levels, in place; noise[j], or `shared` for every key where noise is null. Returns
// the range of the scores before quantization.
Range score_levels(float* x, const float* column, const float* noise, float shared, int64_t n,
                   const ScoreRow& a);
// Levels to levels of probabilities exp(exponent level) / sum, in place; returns what to add to
// log2(e) exponent level for the probability's log2. `sum`: of the levels returned.
float probability_levels(float* x, float exponent, float top, float* sum, int64_t n);
// Levels x and grad = dP, in place: to probabilities and to dS = scale P (dP - sum P dP).
void score_gradients(float* x, float* grad, float exponent, float normalizer, float scale,
                     int64_t n);

}  // namespace refract::optical
