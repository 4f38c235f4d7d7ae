// Memory devices that hold a weight as a conductance: what programming makes of the conductance
// that was wanted, and what is left of it after some time. Conductances are shares of the largest.
//
// pcm: phase-change memory, a pair of devices for a weight (Nandakumar et al., "Phase-change memory
//   models for deep learning training and inference", ICECS 2019, as aihwkit has them for 25 uS).
//     programmed   p = max(g + s(g) xi, 0), s = (0.26348 + 1.9650 g - 1.1731 g^2) / 25
//     drift        p ((t + t0) / t0)^-nu, t0 = 20 s, nu = |mu(g) + sd(g) xi|,
//                  mu = clip(-0.0155 ln g + 0.0244, 0.049, 0.1),
//                  sd = clip(-0.0125 ln g - 0.0059, 0.008, 0.045)
//     reading      times 1 + Q xi sqrt(ln((t + t0 + tr) / (2 tr))), tr = 250 ns,
//                  Q = min(0.0088 / max(p^0.65, 0.001), 0.2); then not below 0
//   t counts from the end of programming; at t = 0 there is neither drift nor reading noise.
// reram-wan: filamentary memory, a pair of devices (Wan et al., "A compute-in-memory chip based on
//   resistive random-access memory", Nature 608, 2022, as fitted by aihwkit for 40 uS):
//   max(g + s(g, t) xi, 0) with a polynomial s for 1 s, 1 day and 2 days. Between these times its
//   coefficients are interpolated over ln t, outside of them held: nothing was measured there.
// gaussian: w + s xi, one device that takes either sign.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

namespace refract {

struct DeviceModel {
  std::string preset = "pcm";
  double time = 0;         // seconds since programming ended
  double scale = 1;        // factor of every deviation
  double gaussian = 0;     // s of "gaussian"
  double programming = 1;  // factor of the deviation of programming, beside scale
};

// Standard normal numbers of the sizes of `like`, another stream for each role: "plus.programming",
// "minus.drift", "plus.reading", ...
using DeviceDraw = std::function<at::Tensor(const at::Tensor& like, const std::string& role)>;

struct ProgrammedWeights {
  at::Tensor programmed;  // when programming ended
  at::Tensor now;         // at the model's time; the same tensor where nothing changes them
};
// Single devices of "pcm" or "reram-wan" for conductances g in [0, 1], float or double, of any
// shape. `name` begins the roles of their draws: "plus", "minus".
ProgrammedWeights program_devices(const at::Tensor& g, const DeviceModel& model,
                                  const DeviceDraw& draw, const std::string& name);
// Weights in [-1, 1]: the difference of a device for the positive part and one for the negative.
ProgrammedWeights program_weights(const at::Tensor& weights, const DeviceModel& model,
                                  const DeviceDraw& draw);

// The deviation of programming for conductances g in [0, 1].
at::Tensor programming_deviation(const at::Tensor& g, const DeviceModel& model);

}  // namespace refract
