#include "report/page/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/files.h"
#include "core/system/process_info.h"
#include "core/version.h"
#include "report/page/plotly.h"
#include "report/page/script.h"
#include "report/page/style.h"
#include "text/utf8.h"

namespace refract {
namespace {

constexpr const char* kSmoothing =
    "<label for=\"smoothing\">Smoothing</label>"
    "<input id=\"smoothing\" type=\"range\" min=\"0\" max=\"0.99\" step=\"0.01\" value=\"0\">"
    "<output id=\"smoothing-value\">0.00</output>";

// & < > " are escaped and invalid UTF-8 is replaced.
std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : repair_utf8(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string cell(const char* tag, const Table::Column& column, const std::string& text) {
  return fmt::format("<{0}{1}>{2}</{0}>", tag,
                     column.align == Align::kRight ? " class=\"number\"" : "", escape_html(text));
}

}  // namespace

Page::Page(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Page::add(const std::string& element) {
  end_row();
  body_ += element;
}

void Page::end_row() {
  if (in_row_) body_ += "</div>\n";
  in_row_ = false;
}

void Page::fact(const std::string& name, const std::string& value) {
  if (!value.empty())
    facts_ += fmt::format("<dt>{}</dt><dd>{}</dd>\n", escape_html(name), escape_html(value));
}
void Page::heading(const std::string& text) {
  add(fmt::format("<h2>{}</h2>\n", escape_html(text)));
}
void Page::subheading(const std::string& text) {
  add(fmt::format("<h3>{}</h3>\n", escape_html(text)));
}
void Page::paragraph(const std::string& text) {
  add(fmt::format("<p>{}</p>\n", escape_html(text)));
}
void Page::preformatted(const std::string& text) {
  add(fmt::format("<pre>{}</pre>\n", escape_html(text)));
}
void Page::begin_fold(const std::string& summary) {
  add(fmt::format("<details><summary>{}</summary>\n", escape_html(summary)));
}
void Page::end_fold() { add("</details>\n"); }

void Page::table(const Table& table) {
  const std::vector<Table::Column>& columns = table.columns();
  std::string out = "<div class=\"scroll\"><table><thead><tr>";
  for (const Table::Column& column : columns) out += cell("th", column, column.name);
  out += "</tr></thead><tbody>\n";
  for (const std::vector<std::string>& row : table.cells()) {
    if (row.empty()) {
      out += fmt::format("<tr class=\"rule\"><td colspan=\"{}\"></td></tr>\n", columns.size());
      continue;
    }
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) out += cell("td", columns[i], row[i]);
    out += "</tr>\n";
  }
  add(out + "</tbody></table></div>\n");
}

void Page::figure(const std::string& title, const std::string& json, int height, bool half_width) {
  if (!in_row_) body_ += "<div class=\"figures\">\n";
  in_row_ = true;
  figures_ += 1;
  body_ += fmt::format(
      "<figure{0}><figcaption>{1}</figcaption><div id=\"figure-{2}\" style=\"height:{3}px\"></div>"
      "<script type=\"application/json\" data-figure=\"figure-{2}\">{4}</script></figure>\n",
      half_width ? " class=\"half\"" : "", escape_html(title), figures_, height, json);
}

void Page::plot(const PlotSpec& spec) {
  figure(spec.title, figure_json(spec), spec.height, spec.half_width);
  smoothing_ = smoothing_ || spec.smoothing;
  if (!spec.other_x.empty()) x_label_ = spec.x_label;
  for (const std::string& label : spec.other_x) {
    if (std::ranges::find(other_x_, label) == other_x_.end()) other_x_.push_back(label);
  }
}

void Page::contour(const ContourSpec& spec) {
  figure(spec.title, figure_json(spec), spec.height, false);
}

void Page::matrix(const MatrixSpec& spec) {
  const int by_rows = static_cast<int>(std::min<size_t>(900, 110 + 34 * spec.rows.size()));
  const int height = std::max(spec.height > 0 ? spec.height : by_rows, 220);
  figure(spec.title, figure_json(spec), height, spec.half_width);
}

std::string Page::controls() const {
  if (!smoothing_ && other_x_.empty()) return "";
  std::string out = "<div class=\"controls\">";
  if (smoothing_) out += kSmoothing;
  if (!other_x_.empty()) {
    out += fmt::format(
        "<label for=\"x-axis\">Horizontal axis</label><select id=\"x-axis\" autocomplete=\"off\">"
        "<option value=\"\">{}</option>",
        escape_html(x_label_));
    for (const std::string& label : other_x_)
      out += fmt::format("<option value=\"{0}\">{0}</option>", escape_html(label));
    out += "</select>";
  }
  return out + "</div>\n";
}

std::string Page::html() const {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style></head>\n<body><main>\n<h1>{0}</h1>\n",
      escape_html(title_), kPageStyle);
  if (!subtitle_.empty()) {
    out += fmt::format("<div class=\"subtitle\">{}</div>\n", escape_html(subtitle_));
  }
  if (!facts_.empty()) out += "<dl class=\"facts\">\n" + facts_ + "</dl>\n";
  out += controls() + body_;
  if (in_row_) out += "</div>\n";
  out += fmt::format("<footer>Written on {} by refract {}: <code>{}</code></footer>\n",
                     utc_minute(seconds_since_1970()), kVersion, escape_html(process_command()));
  out += "</main>\n";
  if (figures_ > 0) out += "<script>" + plotly_script() + "</script>\n";
  out += fmt::format("<script>{}</script>\n</body></html>\n", kPageScript);
  return out;
}

void Page::write(const std::filesystem::path& path) const {
  const std::string text = html();
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  write_file_atomically(path, text);
}

}  // namespace refract
