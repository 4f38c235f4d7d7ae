#include "studies/path_measure.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "studies/path_record.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"

namespace refract {
namespace path_measure_test {

using testing::error_of;
using testing::make_decoder;
using testing::small_llama;

TEST(EngineFor, LeavesPlainModelsTheChoice) {
  for (const char* engine : {"auto", "batched", "prefixes", "single"})
    EXPECT_EQ(engine_for(engine, false, "--engine"), engine);
}

TEST(EngineFor, EvaluatesModelsWithRulesOneByOne) {
  EXPECT_EQ(engine_for("auto", true, "--engine auto"), "single");
  EXPECT_EQ(engine_for("single", true, "--engine single"), "single");
  EXPECT_EQ(error_of([] { engine_for("batched", true, "--engine batched"); }),
            "--engine batched is for models without [[transform]] rules");
  EXPECT_EQ(error_of([] { engine_for("prefixes", true, "connectivity.engine = \"prefixes\""); }),
            "connectivity.engine = \"prefixes\" is for models without [[transform]] rules");
}

TEST(MeasurePath, RunsFromBToAOnEachStream) {
  const ModelConfig config = small_llama();
  auto a = make_decoder(config, at::kFloat, DenseFactory(), 1),
       b = make_decoder(config, at::kFloat, DenseFactory(), 2), model = make_decoder(config);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 100; ++i) tokens.push_back(i * i % 13);
  const std::shared_ptr<TokenStream> all = make_token_stream(tokens),
                                     half = slice_stream(all, 0, 50);
  PointOptions options;
  options.context = 6;
  options.engine = "single";
  std::vector<int64_t> done;
  const PathResult path =
      measure_path(*model, {weights_of(*a), weights_of(*b)}, options,
                   {{"train", all}, {"val", half}}, 3, [&](int64_t n) { done.push_back(n); });
  EXPECT_EQ(path.alphas, (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(path.engine, "single");
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  ASSERT_EQ(path.splits.size(), 2u);
  EXPECT_EQ(path.splits[1].name, "val");
  EXPECT_EQ(path.splits[0].points[0].tokens, 99);
  EXPECT_EQ(path.splits[1].points[0].tokens, 49);
  // The ends are the models themselves, to the last bit.
  EXPECT_EQ(path.splits[0].points[0].loss, evaluate(*b, *all, 6).loss);
  EXPECT_EQ(path.splits[0].points[2].loss, evaluate(*a, *all, 6).loss);
  EXPECT_EQ(path.splits[1].points[2].loss, evaluate(*a, *half, 6).loss);
  EXPECT_EQ(path.geometry.distance, geometry_of(weights_of(*a), weights_of(*b)).distance);
}

TEST(PathJson, ReadsBackWhatItWrote) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  PathResult path;
  path.alphas = {0, 0.5, 1};
  path.splits = {{"val", {{2.0, 0.5, 70}, {nan, 0.25, 70}, {1.0, 0.75, 70}}}};
  path.geometry = {.norm_a = 3, .norm_b = 4, .distance = 5, .dot = 0.1};
  path.engine = "prefixes";
  const PathResult read = path_from_json(nlohmann::json::parse(path_json(path).dump()));
  EXPECT_EQ(read.alphas, path.alphas);
  EXPECT_EQ(read.engine, "prefixes");
  EXPECT_EQ(read.geometry.dot, 0.1);
  EXPECT_EQ(read.geometry.distance, 5);
  ASSERT_EQ(read.splits.size(), 1u);
  EXPECT_EQ(read.splits[0].name, "val");
  EXPECT_EQ(read.splits[0].points[0].loss, 2.0);
  EXPECT_TRUE(std::isnan(read.splits[0].points[1].loss));
  EXPECT_EQ(read.splits[0].points[2].accuracy, 0.75);
  EXPECT_EQ(read.splits[0].points[2].tokens, 70);
  EXPECT_THROW(path_from_json({{"alphas", "x"}}), nlohmann::json::exception);
}

TEST(PathRecord, IsTakenWhereItIsWholeAndOfTheSameMeasurement) {
  PathResult path;
  path.alphas = {0, 1};
  path.splits = {{"train", {{2, 0, 7}, {1, 0, 7}}}, {"val", {{3, 0, 7}, {4, 0, 7}}}};
  nlohmann::json tree = path_json(path);
  tree["measured_with"] = "these settings";
  const std::string text = tree.dump();
  const auto read = read_path(text, "these settings", {"val", "train"}, 2);
  ASSERT_TRUE(read);
  ASSERT_EQ(read->splits.size(), 2u);
  EXPECT_EQ(read->splits[0].name, "val");
  EXPECT_EQ(read->splits[1].points[0].loss, 2);
  EXPECT_FALSE(read_path(text, "other settings", {"val"}, 2));
  EXPECT_FALSE(read_path(text, "these settings", {"test"}, 2));
  EXPECT_FALSE(read_path(text, "these settings", {"val"}, 3));
  EXPECT_FALSE(read_path(text.substr(0, text.size() / 2), "these settings", {"val"}, 2));
  tree["splits"]["val"]["loss"] = {1};
  EXPECT_FALSE(read_path(tree.dump(), "these settings", {"val"}, 2));
  tree["splits"] = "none";
  EXPECT_FALSE(read_path(tree.dump(), "these settings", {"val"}, 2));
}

}  // namespace path_measure_test
}  // namespace refract
