// What a run keeps of its energy, and the front of loss against energy.
#include "report/energy/energy_record.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace energy_record_test {

using testing::has;

ModuleEnergy module(const std::string& name, int64_t layer, const std::string& medium,
                    double product, double beside, double digital) {
  return {name, layer, medium, 100, {product, beside}, digital};
}

std::vector<ModuleEnergy> some() {
  return {module("model.layers.0.mlp.up_proj", 0, "optical", 1e-6, 0, 8e-6),
          module("model.layers.0.mlp.down_proj", 0, "conditioned over optical", 1e-6, 5e-7, 8e-6),
          module("model.layers.1.mlp.up_proj", 1, "optical", 1e-6, 0, 8e-6),
          module("model.layers.1.mlp.down_proj", 1, "digital", 8e-6, 0, 8e-6),
          module("lm_head", -1, "digital", 2e-6, 0, 2e-6)};
}

TEST(EnergyRecord, ComesBackAsItWasWritten) {
  const testing::TemporaryFolder folder;
  EXPECT_FALSE(read_energy(folder.path()));
  write_energy(folder.path(), some(), 64);
  const auto read = read_energy(folder.path());
  ASSERT_TRUE(read);
  EXPECT_EQ(energy_json(*read, 64), energy_json(some(), 64));
  EXPECT_EQ(energy_json(*read, 64)["joules_per_token"], 13.5e-6);
  EXPECT_EQ(energy_json(*read, 64)["digital_joules_per_token"], 34e-6);
  for (const char* broken : {"{", "[1]", R"({"modules": [{"module": 1}]})", R"({"modules": []})"}) {
    std::ofstream(folder.path() / "energy.json") << broken;
    EXPECT_FALSE(read_energy(folder.path())) << broken;
  }
}

// Equal modules of several layers are a row.
TEST(EnergyRecord, TheTableFoldsLayers) {
  const Table table = energy_table(some());
  ASSERT_EQ(table.rows(), 4 + 2U);  // a rule and the total
  EXPECT_EQ(table.cells()[0],
            (std::vector<std::string>{"up_proj", "0-1", "optical", "2 uJ", "0", "16 uJ", "8"}));
  EXPECT_EQ(table.cells()[1][4], "500 nJ");
  EXPECT_EQ(table.cells()[5][3], "13 uJ");
  EXPECT_EQ(table.cells()[5][6], "2.52");  // 34 / 13.5
}

TEST(EnergyRecord, JoulesHaveUnits) {
  EXPECT_EQ(format_joules(0), "0");
  EXPECT_EQ(format_joules(2.5), "2.5 J");
  EXPECT_EQ(format_joules(3e-13), "300 fJ");
  EXPECT_EQ(format_joules(1.2345e-3), "1.234 mJ");
}

// The points that no other beats in both; a loss that is not finite is no point of it.
TEST(EnergyRecord, TheFrontIsWhatNothingBeats) {
  const std::vector<EnergyPoint> points = {{"dear", 4, 1.0},
                                           {"beaten", 3, 2.5},
                                           {"cheap", 1, 3.0},
                                           {"middle", 2, 2.0},
                                           {"ruined", 0.5, std::nan("")},
                                           {"twin", 2, 2.1}};
  std::vector<std::string> names;
  for (const EnergyPoint& point : front_of(points)) names.push_back(point.name);
  EXPECT_EQ(names, (std::vector<std::string>{"cheap", "middle", "dear"}));
  const PlotSpec plot = energy_front(points);
  EXPECT_EQ(plot.series[0].x.size(), 6U);
  EXPECT_EQ(plot.series[1].y, (std::vector<double>{3.0, 2.0, 1.0}));
}

TEST(EnergyRecord, AReportShowsOneRunsModulesAndSeveralRunsFront) {
  const testing::TemporaryFolder folder;
  std::vector<RunRecord> runs(2);
  for (size_t i = 0; i < 2; ++i) {
    runs[i].name = i == 0 ? "first" : "second";
    runs[i].folder = folder.path() / runs[i].name;
    runs[i].metrics["validation_loss"] = {{10}, {2.0 + static_cast<double>(i)}};
    std::filesystem::create_directories(runs[i].folder);
  }
  Page none("no energy");
  add_energy(none, runs);
  EXPECT_FALSE(has(none.html(), "Energy of inference"));
  for (const RunRecord& run : runs) write_energy(run.folder, some(), 64);
  Page one("one");
  add_energy(one, {runs[0]});
  EXPECT_TRUE(has(one.html(), "conditioned over optical"));
  Page both("both");
  add_energy(both, runs);
  EXPECT_TRUE(has(both.html(), "Loss against energy"));
  EXPECT_TRUE(has(both.html(), "2.0000"));
}

}  // namespace energy_record_test
}  // namespace refract
