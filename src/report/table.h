// Tables of plain text for a terminal, and the numbers in them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

enum class Align { kLeft, kRight };

// Columns are as wide as their widest cell, two spaces apart, the header underlined:
//     layer  kind      parameters
//     -----  --------  ----------
//     up     low_rank   1,474,560
class Table {
 public:
  struct Column {
    std::string name;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);
  // Missing cells at the end stay empty; more cells than columns are an Error.
  void add_row(std::vector<std::string> cells);
  // A line of dashes, before a total for instance.
  void add_rule();
  size_t rows() const { return rows_.size(); }
  const std::vector<Column>& columns() const { return columns_; }
  // As added, one cell a column; an empty row is a rule.
  const std::vector<std::vector<std::string>>& cells() const { return rows_; }
  // With a newline after each line and no spaces at line ends. Cells are UTF-8; a code point counts
  // as one column.
  std::string str() const;

 private:
  std::vector<size_t> widths() const;
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

// Code points of a UTF-8 text.
size_t display_width(std::string_view text);

// "1,234,567".
std::string format_integer(int64_t value);
// At most `digits` significant digits, trailing zeros dropped, scientific below 1e-4 and from
// 10^digits on: "1.694e+18", "0.0006", "2.5". Not finite: "nan", "inf", "-inf".
std::string format_number(double value, int digits = 4);
// Always `decimals` digits behind the point, so that a column lines up: "1.70", and "-" for NaN.
std::string format_fixed(double value, int decimals);
// 0.312 -> "31.2%", and "-" for NaN.
std::string format_percent(double fraction, int decimals = 1);

}  // namespace refract
