// An op of the library `refract` as its callers see it. A header declares one by the aggregate of
// its inputs, which is the only place in C++ where they are listed:
//
//   struct NormInputs {
//     const at::Tensor &x, &weight;
//     const MaybeTensor& bias;
//     double eps;
//     bool rms;
//   };
//   inline constexpr Op<"norm", at::Tensor(NormInputs)> norm;
//
// norm(x, weight, bias, eps, rms) then calls it through the dispatcher; fields that have a default
// may be left out at the end. Every form of the op (composite, CPU, CUDA, ...) is a function of
// `const NormInputs&`; the .cpp of the op's name defines the schema and registers forms
// (ops/common/define.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "ops/common/fields.h"

namespace refract {

using MaybeTensor = std::optional<at::Tensor>;
// The default of an input that may be left out.
inline const MaybeTensor kNoTensor;

// The tensor of an optional one, undefined where there is none.
inline at::Tensor value_or_undefined(const MaybeTensor& t) { return t ? *t : at::Tensor(); }
inline MaybeTensor optional_of(const at::Tensor& t) {
  return t.defined() ? MaybeTensor(t) : std::nullopt;
}

// An input, or a result, of several numbers that the schema lists one by one: true for its type.
template <class T>
inline constexpr bool kListedByField = false;

// As the dispatcher passes a field of this type.
template <class Field>
struct Passed {
  using Type = Field;
};
template <>
struct Passed<at::Tensor> {
  using Type = const at::Tensor&;
};
template <>
struct Passed<MaybeTensor> {
  using Type = const MaybeTensor&;
};
template <class T>
struct Passed<std::vector<T>> {
  using Type = at::ArrayRef<T>;
};

namespace op_detail {

// A string as an argument of a template.
template <size_t size>
struct Name {
  char text[size] = {};
  constexpr Name(const char (&from)[size]) {  // NOLINT(google-explicit-constructor)
    for (size_t i = 0; i < size; ++i) text[i] = from[i];
  }
};

// A parameter of the C++ call; what the schema lists by field stays together here.
template <class Field>
struct Parameter {
  using Type =
      std::conditional_t<kListedByField<Field>, const Field&, typename Passed<Field>::Type>;
};

template <class Op, class Inputs, class Result, class Fields>
struct Callable;

template <class Op, class Inputs, class Result, class... Field>
struct Callable<Op, Inputs, Result, std::tuple<const Field&...>> {
  Result operator()(const Inputs& in) const { return Op::call(in); }
  Result operator()(typename Parameter<Field>::Type... values) const {
    return Op::call(Inputs{values...});
  }
  // Without those at the end that have a default.
  template <class... T>
  requires(sizeof...(T) < sizeof...(Field) && requires(const T&... t) { Inputs{t...}; }) Result
  operator()(const T&... values) const {
    return Op::call(Inputs{values...});
  }
};

}  // namespace op_detail

template <op_detail::Name name, class Signature>
struct Op;

template <op_detail::Name name, class InputsType, class ResultType>
struct Op<name, ResultType(InputsType)>
    : op_detail::Callable<Op<name, ResultType(InputsType)>, InputsType, ResultType,
                          FieldsOf<InputsType>> {
  using Inputs = InputsType;
  using Result = ResultType;
  static constexpr const char* kName = name.text;

  // Through the dispatcher. Its body is in define.h, which is slow to compile: only the .cpp that
  // defines the op has it.
  static Result call(const Inputs& in);
};

}  // namespace refract
