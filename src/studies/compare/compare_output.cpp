#include "studies/compare/compare_output.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "report/energy/energy_record.h"
#include "report/page/page.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double perplexity(const RowFigures& figures) { return std::exp(figures.loss()); }

// Over that of the model without a medium, which is the first row where it is known.
double ratio(const RowFigures& figures, const RowFigures* dense) {
  return dense ? std::exp(figures.loss() - dense->loss()) : kUnknown;
}

const RowFigures* dense_before(const CompareResult& result) {
  return result.rows.empty() ? nullptr : &result.rows.front().before;
}
const RowFigures* dense_after(const CompareResult& result) {
  return result.rows.empty() || !result.rows.front().after ? nullptr : &*result.rows.front().after;
}

std::string factor(double value) { return std::isfinite(value) ? format_fixed(value, 3) : "-"; }

// RFC 4180.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string csv(const CompareResult& result) {
  std::string text =
      "row,text,loss,perplexity,loss_after_repair,perplexity_after_repair,joules_per_token,"
      "digital_joules_per_token,tokens_per_second,culprits\n";
  for (const RowResult& row : result.rows) {
    for (size_t i = 0; i < row.before.texts.size(); ++i) {
      const TextFigures& before = row.before.texts[i];
      std::string after = ",";
      if (row.after)
        after = fmt::format("{},{}", row.after->texts[i].loss, std::exp(row.after->texts[i].loss));
      text += fmt::format("{},{},{},{},{},{},{},{},{}\n", quoted(row.name), quoted(before.text),
                          before.loss, std::exp(before.loss), after, row.joules, row.digital,
                          row.before.tokens_per_second,
                          quoted(fmt::format("{}", fmt::join(row.culprits, "; "))));
    }
  }
  return text;
}

Table text_table(const CompareResult& result) {
  Table table({{"row"},
               {"text"},
               {"tokens", Align::kRight},
               {"loss", Align::kRight},
               {"perplexity", Align::kRight},
               {"loss repaired", Align::kRight},
               {"perplexity repaired", Align::kRight}});
  for (const RowResult& row : result.rows) {
    for (size_t i = 0; i < row.before.texts.size(); ++i) {
      const TextFigures& before = row.before.texts[i];
      const double after = row.after ? row.after->texts[i].loss : kUnknown;
      table.add_row({row.name, before.text, format_integer(before.tokens),
                     format_fixed(before.loss, 4), format_number(std::exp(before.loss)),
                     format_fixed(after, 4), row.after ? format_number(std::exp(after)) : "-"});
    }
  }
  return table;
}

void add_front(Page& page, const CompareResult& result, bool repaired) {
  std::vector<EnergyPoint> points;
  for (const RowResult& row : result.rows) {
    if (repaired && !row.after) continue;
    points.push_back({row.name, row.joules, repaired ? row.after->loss() : row.before.loss()});
  }
  if (points.size() < 2) return;
  PlotSpec plot = energy_front(points);
  plot.title += repaired ? ", after repair" : ", before repair";
  page.plot(plot);
}

void add_culprits(Page& page, const CompareResult& result) {
  Table table({{"row"}, {"signal-to-noise ratios, the least first"}});
  for (const RowResult& row : result.rows) {
    for (const std::string& culprit : row.culprits) table.add_row({row.name, culprit});
  }
  if (table.rows() == 0) return;
  page.heading("Culprits");
  page.table(table);
}

Page page_of(const CompareResult& result) {
  Page page("One model in several media", fmt::format("{} rows", result.rows.size()));
  page.table(compare_table(result));
  add_front(page, result, false);
  add_front(page, result, true);
  page.heading("Text by text");
  page.table(text_table(result));
  add_culprits(page, result);
  return page;
}

}  // namespace

void prepare_compare_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_usage("can't make the folder '{}': {}", folder.string(), error.message());
}

Table compare_table(const CompareResult& result) {
  Table table({{"row"},
               {"perplexity", Align::kRight},
               {"/ dense", Align::kRight},
               {"repaired", Align::kRight},
               {"/ dense", Align::kRight},
               {"J per token", Align::kRight},
               {"digital / it", Align::kRight},
               {"tokens/s", Align::kRight},
               {"culprit"}});
  for (const RowResult& row : result.rows) {
    table.add_row({row.name, format_number(perplexity(row.before)),
                   factor(ratio(row.before, dense_before(result))),
                   row.after ? format_number(perplexity(*row.after)) : "-",
                   row.after ? factor(ratio(*row.after, dense_after(result))) : "-",
                   format_joules(row.joules), format_number(row.digital / row.joules, 3),
                   format_number(row.before.tokens_per_second, 3),
                   row.culprits.empty() ? "" : row.culprits.front()});
  }
  return table;
}

json compare_json(const CompareResult& result) {
  json rows = json::array();
  for (const RowResult& row : result.rows) {
    json tree = row_json(row);
    tree["perplexity_ratio"] = ratio(row.before, dense_before(result));
    if (row.after && dense_after(result))
      tree["repaired_perplexity_ratio"] = ratio(*row.after, dense_after(result));
    rows.push_back(std::move(tree));
  }
  return {{"complete", result.complete}, {"failures", result.failures}, {"rows", std::move(rows)}};
}

void write_comparison(const CompareResult& result, const fs::path& folder) {
  write_file_atomically(folder / "compare.json", compare_json(result).dump(1) + "\n");
  write_file_atomically(folder / "compare.csv", csv(result));
  if (result.rows.empty()) return;
  try {  // the tables are what counts
    page_of(result).write(folder / "report.html");
  } catch (const std::exception& error) {
    log_warning("no report was written: {}", error.what());
  }
}

}  // namespace refract
