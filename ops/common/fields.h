// The fields of an aggregate as a tuple of references. C++20 has no reflection: fields are counted
// by how many initializers the aggregate takes, and named by a structured binding.
#pragma once
#include <cstddef>
#include <tuple>
#include <utility>

namespace refract {
namespace fields_detail {

// An initializer for a field of any type.
struct Anything {
  template <class T>
  operator T() const;  // NOLINT(google-explicit-constructor)
};

template <class T, size_t... i>
constexpr bool takes(std::index_sequence<i...>) {
  return requires { T{(static_cast<void>(i), Anything())...}; };
}

inline constexpr size_t kMostFields = 12;

template <class T, size_t n = kMostFields>
constexpr size_t count() {
  static_assert(n > 0 && !takes<T>(std::make_index_sequence<kMostFields + 1>()),
                "an aggregate of one to twelve fields");
  if constexpr (takes<T>(std::make_index_sequence<n>())) {
    return n;
  } else {
    return count<T, n - 1>();
  }
}

}  // namespace fields_detail

template <class T>
constexpr auto fields(const T& of) {
  constexpr size_t n = fields_detail::count<T>();
  if constexpr (n == 1) {
    const auto& [a] = of;
    return std::tie(a);
  } else if constexpr (n == 2) {
    const auto& [a, b] = of;
    return std::tie(a, b);
  } else if constexpr (n == 3) {
    const auto& [a, b, c] = of;
    return std::tie(a, b, c);
  } else if constexpr (n == 4) {
    const auto& [a, b, c, d] = of;
    return std::tie(a, b, c, d);
  } else if constexpr (n == 5) {
    const auto& [a, b, c, d, e] = of;
    return std::tie(a, b, c, d, e);
  } else if constexpr (n == 6) {
    const auto& [a, b, c, d, e, f] = of;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (n == 7) {
    const auto& [a, b, c, d, e, f, g] = of;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (n == 8) {
    const auto& [a, b, c, d, e, f, g, h] = of;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (n == 9) {
    const auto& [a, b, c, d, e, f, g, h, i] = of;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (n == 10) {
    const auto& [a, b, c, d, e, f, g, h, i, j] = of;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (n == 11) {
    const auto& [a, b, c, d, e, f, g, h, i, j, k] = of;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else {
    const auto& [a, b, c, d, e, f, g, h, i, j, k, l] = of;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  }
}

// Of its type alone: std::tuple<const Field&...>.
template <class T>
using FieldsOf = decltype(fields(std::declval<const T&>()));

}  // namespace refract
