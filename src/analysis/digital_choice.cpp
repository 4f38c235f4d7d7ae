#include "analysis/digital_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/random.h"

namespace refract {
namespace {

using Modules = std::vector<DigitalChoice>;

constexpr size_t kByWorth = 3, kByGain = 3;  // that a turn tries of each order
constexpr int kDraws = 3;

double worth(const DigitalChoice& module) {
  return module.gain / std::max(module.multiplications, 1.0);
}

Chosen in_order(const Modules& modules) {
  Chosen order(modules.size());
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

template <class Value>
Chosen ranked(const Modules& modules, Value value) {
  Chosen order = in_order(modules);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return value(modules[a]) > value(modules[b]); });
  return order;
}

// Takes of `order` whatever still fits.
Chosen filled(const Modules& modules, const Chosen& order, double budget, bool gainful) {
  Chosen chosen;
  for (const size_t i : order) {
    if (modules[i].multiplications > budget || (gainful && modules[i].gain <= 0)) continue;
    budget -= modules[i].multiplications;
    chosen.push_back(i);
  }
  return chosen;
}

Chosen evenly_spread(const Modules& modules, double budget) {
  double all = 0;
  for (const DigitalChoice& module : modules) all += module.multiplications;
  Chosen chosen;
  // A module is taken wherever the share of what was passed asks for more than was taken.
  double passed = 0, taken = 0;
  for (size_t i = 0; i < modules.size(); ++i) {
    passed += modules[i].multiplications;
    const double wanted = all > 0 ? budget * passed / all : 0;
    if (taken + modules[i].multiplications > wanted + 1e-9) continue;
    taken += modules[i].multiplications;
    chosen.push_back(i);
  }
  return chosen;
}

Chosen drawn(const Modules& modules, double budget, uint64_t seed) {
  RandomStream stream(seed, "uniform choice");
  Chosen order = in_order(modules);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[stream.below(i)]);
  return filled(modules, order, budget, false);
}

// A choice that grows.
struct Growing {
  const Modules& modules;
  double left;  // of the budget
  Chosen chosen;
  std::vector<bool> taken;

  bool fits(size_t i) const {
    return !taken[i] && modules[i].gain > 0 && modules[i].multiplications <= left;
  }
  void take(size_t i) {
    taken[i] = true;
    left -= modules[i].multiplications;
    chosen.push_back(i);
  }
  // The first of each order that fit.
  Chosen candidates(const Chosen& by_worth, const Chosen& by_gain) const {
    Chosen some;
    const auto add = [&](const Chosen& order, size_t count) {
      for (const size_t i : order) {
        if (count == 0) return;
        if (!fits(i) || std::find(some.begin(), some.end(), i) != some.end()) continue;
        some.push_back(i);
        --count;
      }
    };
    add(by_worth, kByWorth);
    add(by_gain, kByGain);
    return some;
  }
};

}  // namespace

Chosen choose_by_gain(const Modules& modules, double budget) {
  return filled(modules, ranked(modules, [](const auto& m) { return m.gain; }), budget, true);
}

Chosen choose_by_worth(const Modules& modules, double budget) {
  return filled(modules, ranked(modules, worth), budget, true);
}

Chosen choose_in_turn(const Modules& modules, double budget, const Chosen& chosen,
                      const LossWithout& loss, int64_t most) {
  const Chosen by_worth = ranked(modules, worth);
  const Chosen by_gain = ranked(modules, [](const auto& m) { return m.gain; });
  Growing growing{modules, budget, {}, std::vector<bool>(modules.size(), false)};
  for (const size_t i : chosen) growing.take(i);
  double now = loss(growing.chosen);
  for (Chosen some = growing.candidates(by_worth, by_gain); !some.empty();
       some = growing.candidates(by_worth, by_gain)) {
    size_t best = some.front();
    if (most > 0 && some.size() > 1) {
      // Where nothing helps by itself, as where several modules ruin all, it is the first.
      double best_worth = 0, best_loss = 0;
      for (const size_t i : some) {
        Chosen with = growing.chosen;
        with.push_back(i);
        const double then = loss(with);
        --most;
        const double won = (now - then) / std::max(modules[i].multiplications, 1.0);
        if (i == some.front()) best_loss = then;
        if (won > best_worth) best = i, best_worth = won, best_loss = then;
      }
      now = best_loss;
    }
    growing.take(best);
  }
  return growing.chosen;
}

std::vector<UniformChoice> uniform_choices(const Modules& modules, double budget) {
  Chosen order = in_order(modules);
  std::vector<UniformChoice> all;
  all.push_back({"evenly spread", evenly_spread(modules, budget)});
  all.push_back({"the first", filled(modules, order, budget, false)});
  std::reverse(order.begin(), order.end());
  all.push_back({"the last", filled(modules, order, budget, false)});
  for (int draw = 1; draw <= kDraws; ++draw) {
    all.push_back(
        {fmt::format("random {}", draw), drawn(modules, budget, static_cast<uint64_t>(draw))});
  }
  return all;
}

}  // namespace refract
