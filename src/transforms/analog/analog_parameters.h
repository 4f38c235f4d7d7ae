// The parameters of a rule of the kind `analog`; kinds/analog.cpp describes and checks them.
#pragma once
#include <cstdint>
#include <string>

namespace refract {

struct AnalogParameters {
  // What a tile takes at most; 0: all of them.
  int64_t tile_rows = 512, tile_columns = 512;

  // The input of a tile: a converter of so many bits (0: none) over +-range, which is that of each
  // vector, a running one, or a parameter of the model.
  int64_t x_bits = 8;
  std::string x_range = "dynamic";  // or "ema", "learned"
  double x_smooth = 0.9;            // of "ema": r <- s r + (1 - s) new
  double x_decay = 0.001;           // of "learned"
  int64_t x_init = 100;             // of "learned": steps that set it from the data

  // The output of a tile, normalized: its weights and its inputs are at most 1.
  double out_noise = 0.04;
  double out_bound = 10;  // 0: none
  int64_t adc_bits = 8;   // 0: none
  std::string adc_range =
      "fixed";            // or "vector": from the smallest to the largest within the bound
  double read_noise = 0;  // s of s xi sqrt(sum x^2 |w|)
  double ir_drop = 0;     // factor of the wires' resistance; 1: aihwkit's

  // The weight.
  std::string w_scale = "column";  // whose maximum is 1: "column", "tile", "tensor"
  int64_t w_bits = 0;              // 0: any value
  double w_clip = 0;               // clipped at so many deviations; 0: not
  double w_noise = 0;              // in training, as a share of the maximum
  std::string w_noise_per = "column";

  // The devices, in evaluations.
  std::string preset = "ideal";  // "pcm", "reram-wan", "gaussian", "sram"
  int64_t chip = 0;
  double time = 0;  // seconds since programming ended
  bool drift_compensation = true;
  double device_noise = 1;         // factor of the deviations of programming, drift and reading
  double programming_noise = 1;    // factor of that of programming alone, beside device_noise
  bool train_programming = false;  // programmed anew in every step of training

  // Of "sram": block floating point, or integers.
  std::string x_format = "e4m3", w_format = "e4m3";
  double product_noise = 0;  // s of y (1 + s xi)

  bool digital() const { return preset == "sram"; }
  bool learns_range() const { return x_range == "learned"; }
};

}  // namespace refract
