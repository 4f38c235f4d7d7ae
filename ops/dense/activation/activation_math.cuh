// GELU and its slope on the device, shared by the kernels that apply it.
#pragma once

namespace refract {

// kFast: results are rounded to 16 bits, so the hardware's exponential and division suffice.
template <bool kFast>
__device__ __forceinline__ float sigmoid(float z) {
  if constexpr (kFast) {
    return __fdividef(1.0f, 1.0f + __expf(-z));
  } else {
    return 1.0f / (1.0f + expf(-z));
  }
}

struct GeluTanh {
  static constexpr int kInputs = 1;
  static constexpr float k = 1.5957691216057308f;  // 2 sqrt(2 / pi): tanh(z) = 2 sigmoid(2z) - 1
  template <bool kFast>
  static __device__ __forceinline__ float forward(float h, float) {
    return h * sigmoid<kFast>(k * (h + 0.044715f * h * h * h));
  }
  template <bool kFast>
  static __device__ __forceinline__ void backward(float g, float h, float, float& d0, float&) {
    const float s = sigmoid<kFast>(k * (h + 0.044715f * h * h * h));
    d0 = g * (s + h * s * (1.0f - s) * k * (1.0f + 0.134145f * h * h));
  }
};

struct GeluErf {
  static constexpr int kInputs = 1;
  template <bool kFast>
  static __device__ __forceinline__ float forward(float h, float) {
    return h * (0.5f * (1.0f + erff(h * 0.70710678f)));
  }
  template <bool kFast>
  static __device__ __forceinline__ void backward(float g, float h, float, float& d0, float&) {
    const float cdf = 0.5f * (1.0f + erff(h * 0.70710678f));
    const float e = kFast ? __expf(-0.5f * h * h) : expf(-0.5f * h * h);
    d0 = g * (cdf + h * 0.39894228f * e);
  }
};

}  // namespace refract
