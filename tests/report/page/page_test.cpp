#include "report/page/page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "support/temporary_folder.h"

namespace refract {
namespace {

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

TEST_F(PageTest, WantsPlotlyOnlyForPlots) {
  setenv("REFRACT_PLOTLY", (folder_ / "none.js").c_str(), 1);
  Page page("t");
  page.paragraph("text");
  page.write(folder_ / "new/folder/report.html");
  EXPECT_TRUE(read_file(folder_ / "new/folder/report.html").starts_with("<!DOCTYPE html>"));
  page.plot({.series = {{.x = {1}, .y = {1}}}});
  EXPECT_THROW(page.html(), Error);
}

}  // namespace
}  // namespace refract
