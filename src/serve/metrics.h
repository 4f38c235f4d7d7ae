// Counters of a server, as Prometheus reads them.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "serve/engine/engine.h"

namespace refract {

class Metrics {
 public:
  void answered(int status);         // any HTTP answer
  void completed(double seconds);    // a completion that was answered in full
  void first_token(double seconds);  // from the request to its first new token
  void abandoned();                  // a client that went away before its answer
  // Text exposition format 0.0.4.
  std::string text(const Engine::Load& load) const;

 private:
  struct Histogram {
    static constexpr std::array kBounds = {0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0};
    std::array<int64_t, kBounds.size() + 1> counts = {};
    double sum = 0;
    void add(double value);
    std::string text(const std::string& name, const std::string& help) const;
  };

  mutable std::mutex mutex_;
  std::map<int, int64_t> answers_;
  Histogram completed_, first_token_;
  int64_t abandoned_ = 0;
};

}  // namespace refract
