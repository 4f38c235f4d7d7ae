#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace refract {
namespace {

void append_cell(std::string& line, std::string_view text, size_t width, Align align) {
  const std::string padding(width - std::min(width, display_width(text)), ' ');
  if (align == Align::kRight) line += padding;
  line += text;
  if (align == Align::kLeft) line += padding;
}

}  // namespace

size_t display_width(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
  if (columns_.empty()) fail("a table needs a column");
}

void Table::add_row(std::vector<std::string> cells) {
  if (cells.size() > columns_.size()) {
    fail("a row of {} cells does not fit a table of {} columns", cells.size(), columns_.size());
  }
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::add_rule() { rows_.emplace_back(); }

std::vector<size_t> Table::widths() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.name));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  return widths;
}

std::string Table::str() const {
  const std::vector<size_t> width = widths();
  std::string out;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) line += "  ";
      append_cell(line, cell_of(i), width[i], columns_[i].align);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  const auto add_dashes = [&] { add_line([&](size_t i) { return std::string(width[i], '-'); }); };
  add_line([&](size_t i) { return columns_[i].name; });
  add_dashes();
  for (const auto& row : rows_) {
    if (row.empty()) {
      add_dashes();
    } else {
      add_line([&](size_t i) { return row[i]; });
    }
  }
  return out;
}

std::string format_integer(int64_t value) {
  std::string digits = fmt::format("{}", value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3;) digits.insert(i -= 3, 1, ',');
  return digits;
}

std::string format_number(double value, int digits) {
  return fmt::format("{:.{}g}", value, digits);
}

std::string format_fixed(double value, int decimals) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, decimals);
}

std::string format_percent(double fraction, int decimals) {
  return std::isnan(fraction) ? "-" : fmt::format("{:.{}f}%", 100 * fraction, decimals);
}

}  // namespace refract
