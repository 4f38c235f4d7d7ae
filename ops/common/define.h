// Definition of an op and registration of its forms. In the .cpp of the op's name:
//
//   TORCH_LIBRARY_FRAGMENT(refract, m) {
//     define(m, norm, "(Tensor x, Tensor weight, Tensor? bias, float eps, bool rms) -> Tensor")
//         .composite<composite::norm>()
//         .autograd<norm_autograd>()
//         .meta<norm_meta>();
//   }
//
// and in x_cpu.cpp and x_cuda.cpp: forms(m, norm).cpu<norm_cpu>(). A form is a function of the op's
// inputs (ops/common/op.h). The schema gives Python the names and the defaults; the dispatcher
// compares its types with the inputs' when the library is loaded.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ops/common/op.h"

namespace refract {
namespace op_detail {

// ---- Inputs as the dispatcher passes them, which has no structs

template <class T>
auto flat_fields(const T& value);

template <class T>
auto flat(const T& value) {
  if constexpr (kListedByField<T>) {
    return flat_fields(value);
  } else {
    return std::tuple<typename Passed<T>::Type>(value);
  }
}

template <class T>
auto flat_fields(const T& value) {
  return std::apply([](const auto&... field) { return std::tuple_cat(flat(field)...); },
                    fields(value));
}

template <class Inputs>
using FlatInputs = decltype(flat_fields(std::declval<const Inputs&>()));

template <class Result, class Flat>
struct SignatureOf;
template <class Result, class... Passed>
struct SignatureOf<Result, std::tuple<Passed...>> {
  using Type = Result(Passed...);
};

// ---- and back

template <class T, size_t i>
using FieldAt = std::remove_cvref_t<std::tuple_element_t<i, FieldsOf<T>>>;

// Where field i of T begins among T's flat ones.
template <class T, size_t i>
constexpr size_t place_of() {
  if constexpr (i == 0) {
    return 0;
  } else {
    return place_of<T, i - 1>() +
           std::tuple_size_v<decltype(flat(std::declval<const FieldAt<T, i - 1>&>()))>;
  }
}

// A `Field` of what was passed from `first` on: a reference, or a value made of several.
template <class Field, size_t first, class Flat>
decltype(auto) field_from(const Flat& passed);

template <class T, size_t first, class Flat, size_t... i>
T value_from(const Flat& passed, std::index_sequence<i...>) {
  return T{field_from<FieldAt<T, i>, first + place_of<T, i>()>(passed)...};
}

template <class Field, size_t first, class Flat>
decltype(auto) field_from(const Flat& passed) {
  if constexpr (kListedByField<Field>) {
    constexpr size_t n = std::tuple_size_v<FieldsOf<Field>>;
    return value_from<Field, first>(passed, std::make_index_sequence<n>());
  } else if constexpr (requires(std::tuple_element_t<first, Flat> x, Field f) { f = x.vec(); }) {
    return std::get<first>(passed).vec();
  } else {
    return std::get<first>(passed);
  }
}

// form(inputs). They refer to what lives until the call is done, so they are made in its argument.
template <class Inputs, class Flat, class Form, size_t... i>
decltype(auto) call_with_inputs(const Flat& passed, Form form, std::index_sequence<i...>) {
  return form(Inputs{field_from<FieldAt<Inputs, i>, place_of<Inputs, i>()>(passed)...});
}

// ---- Results: a struct of tensors is a tuple to the dispatcher

template <class Result>
auto passed_result(Result&& result) {
  if constexpr (std::is_aggregate_v<Result>) {
    return std::apply(
        [](const auto&... field) {
          return std::tuple<std::remove_cvref_t<decltype(field)>...>(field...);
        },
        fields(result));
  } else {
    return std::forward<Result>(result);
  }
}

template <class Result>
struct PassedResult {
  using Type = decltype(passed_result(std::declval<Result>()));
};
template <>
struct PassedResult<void> {
  using Type = void;
};

template <class Result, class Passed>
Result result_from(Passed&& passed) {
  if constexpr (std::is_aggregate_v<Result>) {
    return std::make_from_tuple<Result>(std::forward<Passed>(passed));
  } else {
    return std::forward<Passed>(passed);
  }
}

// The handle of "refract::name"; raises where no such op was registered.
c10::OperatorHandle find_op(const char* name);

// A form as the dispatcher calls it.
template <class Op, auto form, class Flat>
struct Kernel;
template <class Op, auto form, class... Passed>
struct Kernel<Op, form, std::tuple<Passed...>> {
  using Inputs = typename Op::Inputs;
  static typename PassedResult<typename Op::Result>::Type run(Passed... passed) {
    const std::tuple<Passed...> all(passed...);
    constexpr auto every = std::make_index_sequence<std::tuple_size_v<FieldsOf<Inputs>>>();
    if constexpr (std::is_void_v<typename Op::Result>) {
      call_with_inputs<Inputs>(all, form, every);
    } else {
      return passed_result(call_with_inputs<Inputs>(all, form, every));
    }
  }
};

}  // namespace op_detail

template <op_detail::Name name, class InputsType, class ResultType>
ResultType Op<name, ResultType(InputsType)>::call(const InputsType& in) {
  using Signature =
      typename op_detail::SignatureOf<typename op_detail::PassedResult<ResultType>::Type,
                                      op_detail::FlatInputs<InputsType>>::Type;
  // Looking it up takes a lock.
  static const auto handle = op_detail::find_op(kName).template typed<Signature>();
  const auto through = [](const auto&... passed) { return handle.call(passed...); };
  if constexpr (std::is_void_v<ResultType>) {
    std::apply(through, op_detail::flat_fields(in));
  } else {
    return op_detail::result_from<ResultType>(std::apply(through, op_detail::flat_fields(in)));
  }
}

// Registers forms of an op.
template <class Op>
class Forms {
 public:
  explicit Forms(torch::Library& library) : library_(library) {}

  // The definition in plain ATen, for every device without a kernel of its own.
  template <auto form>
  Forms& composite() {
    return add<form>(c10::DispatchKey::CompositeExplicitAutograd);
  }
  // See ops/common/autograd.h.
  template <auto form>
  Forms& autograd() {
    return add<form>(c10::DispatchKey::Autograd);
  }
  // The fake form: shapes and types, symbolic ones too. None: the composite one shows them.
  template <auto form>
  Forms& meta() {
    return add<form>(c10::DispatchKey::Meta);
  }
  template <auto form>
  Forms& cpu() {
    return add<form>(c10::DispatchKey::CPU);
  }
  template <auto form>
  Forms& cuda() {
    return add<form>(c10::DispatchKey::CUDA);
  }

 private:
  template <auto form>
  Forms& add(c10::DispatchKey key) {
    using Flat = op_detail::FlatInputs<typename Op::Inputs>;
    library_.impl(Op::kName, torch::dispatch(key, &op_detail::Kernel<Op, form, Flat>::run));
    return *this;
  }

  torch::Library& library_;
};

template <class Op>
Forms<Op> forms(torch::Library& library, Op /*op*/) {
  return Forms<Op>(library);
}

// `signature`: all of the schema but the name.
template <class Op>
Forms<Op> define(torch::Library& library, Op op, const std::string& signature) {
  // Reading the address makes the compiler emit the function, for callers that see op.h alone.
  static typename Op::Result (*const volatile emitted)(const typename Op::Inputs&) = &Op::call;
  static_cast<void>(emitted);
  library.def((Op::kName + signature).c_str());
  return forms(library, op);
}

}  // namespace refract
