#include "report/page/page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/system/process_info.h"
#include "report/page/traces.h"
#include "support/temporary_folder.h"

namespace refract {
namespace page_test {

using testing::TemporaryFolder;

// The JSON of the page's figure `index` (from 1), as its script will parse it.
nlohmann::json figure(const std::string& html, int index) {
  const std::string start = fmt::format("data-figure=\"figure-{}\">", index);
  const size_t begin = html.find(start);
  if (begin == std::string::npos) return nullptr;
  const size_t end = html.find("</script>", begin);
  return nlohmann::json::parse(html.substr(begin + start.size(), end - begin - start.size()));
}

// A page needs some Plotly; what it does is for the browser's test.
class PageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_file_atomically(folder_ / "plotly.js", "/* stands for Plotly */");
    setenv("REFRACT_PLOTLY", (folder_ / "plotly.js").c_str(), 1);
  }
  void TearDown() override { unsetenv("REFRACT_PLOTLY"); }
  TemporaryFolder folder_;
};

TEST_F(PageTest, EscapesTextsEverywhere) {
  const std::string evil = "</script><b>&\"\xff";
  Page page(evil, evil);
  page.heading(evil);
  page.paragraph(evil);
  page.preformatted(evil);
  Table table({{evil}});
  table.add_row({evil});
  page.table(table);
  page.plot({.title = evil, .x_label = evil, .series = {{.name = evil, .x = {1}, .y = {2}}}});
  const std::string html = page.html();
  EXPECT_EQ(html.find("<b>"), std::string::npos);
  EXPECT_EQ(html.find('\xff'), std::string::npos);
  EXPECT_NE(html.find("<h2>&lt;/script&gt;&lt;b&gt;&amp;&quot;\xef\xbf\xbd</h2>"),
            std::string::npos);
  EXPECT_EQ(figure(html, 1)["data"][0]["name"], "&lt;/script&gt;&lt;b&gt;&amp;\"\xef\xbf\xbd");
}

TEST_F(PageTest, PlotsCarryTheirData) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Page page("t");
  page.plot({.title = "loss",
             .log_x = true,
             .series = {{.name = "a", .x = {1, 2, 3}, .y = {0.1, nan, 1.0 / 3}, .error = {1, 2, 3}},
                        {.name = "b", .x = {0}, .y = {5}, .mode = SeriesMode::kBars, .color = 7}}});
  const nlohmann::json f = figure(page.html(), 1);
  ASSERT_EQ(f["data"].size(), 2u);
  EXPECT_EQ(f["data"][0]["x"], nlohmann::json({1, 2, 3}));
  EXPECT_EQ(f["data"][0]["y"], nlohmann::json({0.1, nullptr, 0.3333333}));
  EXPECT_EQ(f["data"][0]["error_y"]["array"], nlohmann::json({1, 2, 3}));
  EXPECT_EQ(f["data"][1]["type"], "bar");
  EXPECT_EQ(f["data"][1]["marker"]["color"], series_color(7, 2));
  EXPECT_EQ(f["layout"]["xaxis"]["type"], "log");
  EXPECT_FALSE(f["layout"]["yaxis"].contains("type"));
}

TEST_F(PageTest, GridsCarryTheirData) {
  Page page("t");
  page.contour({.title = "c",
                .x = {0, 1, 2},
                .y = {5, 6},
                .z = {{1, 2, 3}, {4, 5, 6}},
                .series = {{.name = "model", .x = {1}, .y = {5}, .mode = SeriesMode::kMarkers}}});
  page.matrix({.title = "m",
               .rows = {"r0", "r1"},
               .columns = {"c0"},
               .values = {{1}, {-2}},
               .diverging = true});
  const std::string html = page.html();
  const nlohmann::json contour = figure(html, 1), matrix = figure(html, 2);
  EXPECT_EQ(contour["data"][0]["type"], "contour");
  EXPECT_EQ(contour["data"][0]["z"], nlohmann::json({{1, 2, 3}, {4, 5, 6}}));
  EXPECT_EQ(contour["data"][1]["name"], "model");
  EXPECT_EQ(matrix["data"][0]["z"], nlohmann::json({{1}, {-2}}));
  EXPECT_EQ(matrix["data"][0]["zmid"], 0);
  EXPECT_EQ(matrix["layout"]["yaxis"]["ticktext"], nlohmann::json({"r0", "r1"}));
}

TEST_F(PageTest, RefusesLengthsThatDisagree) {
  Page page("t");
  EXPECT_THROW(page.plot({.series = {{.x = {1, 2}, .y = {1}}}}), Error);
  EXPECT_THROW(page.plot({.series = {{.x = {1}, .y = {1}, .error = {1, 2}}}}), Error);
  EXPECT_THROW(page.contour({.x = {1, 2}, .y = {1}, .z = {{1}}}), Error);
  EXPECT_THROW(page.matrix({.rows = {"a"}, .columns = {"b"}, .values = {}}), Error);
}

TEST_F(PageTest, HasASmoothingControlOnlyWhereAPlotAsksForIt) {
  Page plain("t"), smooth("t");
  plain.plot({.series = {{.x = {1}, .y = {1}}}});
  smooth.plot({.series = {{.x = {1}, .y = {1}}}, .smoothing = true});
  EXPECT_EQ(plain.html().find("id=\"smoothing\""), std::string::npos);
  EXPECT_NE(smooth.html().find("id=\"smoothing\""), std::string::npos);
}

TEST_F(PageTest, BandsAndOtherAxesGoWithTheirSeries) {
  Page page("t");
  page.plot({.x_label = "step",
             .series = {{.name = "fit",
                         .x = {1, 2},
                         .y = {3, 4},
                         .low = {2, 3},
                         .high = {4, 5},
                         .other_x = {{10, 20}}},
                        {.name = "bare", .x = {1}, .y = {1}}},
             .shades = {{0, 1, "guided"}},
             .levels = {{0.5, "limit"}},
             .notes = {{1, 3, "here"}, {1, std::nan(""), "nowhere"}},
             .other_x = {"tokens"}});
  const std::string html = page.html();
  const nlohmann::json f = figure(html, 1);
  ASSERT_EQ(f["data"].size(), 4u);  // two edges, the fit, the other series
  EXPECT_EQ(f["data"][0]["y"], nlohmann::json({4, 5}));
  EXPECT_EQ(f["data"][1]["y"], nlohmann::json({2, 3}));
  EXPECT_EQ(f["data"][1]["fill"], "tonexty");
  EXPECT_EQ(f["data"][2]["name"], "fit");
  const nlohmann::json x = {10, 20};
  EXPECT_EQ(f["other_x"][0]["label"], "tokens");
  EXPECT_EQ(f["other_x"][0]["x"], nlohmann::json({x, x, x, nullptr}));
  EXPECT_EQ(f["shades"][0]["to"], 1);
  EXPECT_EQ(f["levels"][0]["label"], "limit");
  EXPECT_EQ(f["notes"].size(), 1u);
  EXPECT_NE(html.find("<option value=\"\">step</option><option value=\"tokens\">"),
            std::string::npos);
  EXPECT_THROW(page.plot({.series = {{.x = {1}, .y = {1}, .low = {1, 2}, .high = {1}}}}), Error);
  EXPECT_THROW(
      page.plot({.series = {{.x = {1}, .y = {1}, .other_x = {{1}, {2}}}}, .other_x = {"a"}}),
      Error);
}

TEST_F(PageTest, LogarithmicColoursKeepTheValuesAsText) {
  Page page("t");
  page.matrix({.rows = {"r0", "r1"},
               .columns = {"c0", "c1"},
               .values = {{1, 1000}, {0, 10}},
               .log_colors = true});
  const nlohmann::json data = figure(page.html(), 1)["data"][0];
  EXPECT_EQ(data["z"], nlohmann::json({{0, 3}, {nullptr, 1}}));
  EXPECT_EQ(data["text"], nlohmann::json::parse(R"([["1", "1e+03"], ["", "10"]])"));
  EXPECT_EQ(data["texttemplate"], "%{text}");
  EXPECT_EQ(data["colorbar"]["ticktext"].front(), "1");
  EXPECT_EQ(data["colorbar"]["ticktext"].back(), "1e+03");
}

TEST_F(PageTest, SaysWhatItIsAboutAndHowItWasWritten) {
  Page page("t");
  page.fact("device", "a <b>");
  page.fact("empty", "");
  const std::string html = page.html();
  EXPECT_NE(html.find("<dt>device</dt><dd>a &lt;b&gt;</dd>"), std::string::npos);
  EXPECT_EQ(html.find("<dt>empty"), std::string::npos);
  EXPECT_NE(html.find("<footer>Written on 2"), std::string::npos);
  EXPECT_NE(html.find(process_command()), std::string::npos);
  EXPECT_FALSE(process_command().empty());
}

TEST(CommonRange, HoldsAllFiniteValues) {
  const PlotSpec a{.series = {{.x = {0, 1}, .y = {1, 3}}}};
  const PlotSpec b{.series = {{.x = {0, 1}, .y = {std::nan(""), 5}}}};
  const auto [low, high] = common_y_range({a, b});
  EXPECT_LT(low, 1);
  EXPECT_GT(low, 0);
  EXPECT_GT(high, 5);
  EXPECT_LT(high, 6);
  EXPECT_EQ(common_y_range({}), (std::pair<double, double>(0, 0)));
}

TEST_F(PageTest, WantsPlotlyOnlyForPlots) {
  setenv("REFRACT_PLOTLY", (folder_ / "none.js").c_str(), 1);
  Page page("t");
  page.paragraph("text");
  page.write(folder_ / "new/folder/report.html");
  EXPECT_TRUE(read_file(folder_ / "new/folder/report.html").starts_with("<!DOCTYPE html>"));
  page.plot({.series = {{.x = {1}, .y = {1}}}});
  EXPECT_THROW(page.html(), Error);
}

}  // namespace page_test
}  // namespace refract
