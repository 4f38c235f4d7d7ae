#include "runs/inspect/folded_parameters.h"

#include <gtest/gtest.h>

#include <tuple>
#include <utility>

#include "support/small_models.h"

namespace refract {
namespace folded_parameters_test {

using Row = std::tuple<std::string, std::vector<int64_t>, int64_t, int64_t>;

std::vector<Row> rows_of(const std::deque<Parameter>& parameters) {
  std::vector<Row> rows;
  for (const FoldedParameter& p : fold_layers(parameters))
    rows.emplace_back(p.name, p.shape, p.copies, p.count);
  return rows;
}

std::deque<Parameter> named(const std::vector<std::pair<std::string, std::vector<int64_t>>>& all) {
  std::deque<Parameter> parameters;
  for (const auto& [name, shape] : all) {
    Parameter parameter;
    parameter.name = name;
    parameter.shape = shape;
    parameters.push_back(parameter);
  }
  return parameters;
}

TEST(FoldedParameters, EqualLayersStandOnce) {
  EXPECT_EQ(rows_of(named({{"model.embed_tokens.weight", {5, 2}},
                           {"model.layers.0.a.weight", {2, 3}},
                           {"model.layers.0.b.bias", {3}},
                           {"model.layers.1.a.weight", {2, 3}},
                           {"model.layers.1.b.bias", {3}},
                           {"model.norm.weight", {2}}})),
            (std::vector<Row>{{"model.embed_tokens.weight", {5, 2}, 1, 10},
                              {"model.layers.0-1.a.weight", {2, 3}, 2, 12},
                              {"model.layers.0-1.b.bias", {3}, 2, 6},
                              {"model.norm.weight", {2}, 1, 2}}));
}

TEST(FoldedParameters, OnlyNeighboursWithTheSameNamesAndShapesAreFolded) {
  EXPECT_EQ(rows_of(named({{"model.layers.0.a.weight", {2}},
                           {"model.layers.1.a.weight", {4}},
                           {"model.layers.2.b.weight", {4}},
                           {"model.layers.9.c.weight", {2}},
                           {"model.layers.10.c.weight", {2}}})),
            (std::vector<Row>{{"model.layers.0.a.weight", {2}, 1, 2},
                              {"model.layers.1.a.weight", {4}, 1, 4},
                              {"model.layers.2.b.weight", {4}, 1, 4},
                              {"model.layers.9-10.c.weight", {2}, 2, 4}}));
}

TEST(FoldedParameters, NothingOfAModelIsLost) {
  const Decoder model(testing::small_llama(), DenseFactory());
  int64_t count = 0;
  for (const FoldedParameter& p : fold_layers(model.arena().parameters())) count += p.count;
  EXPECT_EQ(count, model.arena().count());
}

}  // namespace folded_parameters_test
}  // namespace refract
