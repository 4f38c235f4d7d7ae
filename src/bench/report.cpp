#include "bench/report.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "report/table.h"

namespace refract {
namespace {

std::string cell(const nlohmann::json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return format_integer(value.get<int64_t>());
  return format_number(value.get<double>());
}

}  // namespace

struct BenchReport::Content {
  nlohmann::json rows = nlohmann::json::array(), extra = nlohmann::json::object();
};

BenchReport::BenchReport(std::string name, BenchDevice device, std::vector<std::string> columns)
    : name_(std::move(name)),
      device_(std::move(device)),
      columns_(std::move(columns)),
      content_(std::make_unique<Content>()) {}

BenchReport::BenchReport(BenchReport&&) noexcept = default;
BenchReport& BenchReport::operator=(BenchReport&&) noexcept = default;
BenchReport::~BenchReport() = default;

nlohmann::json& BenchReport::extra() { return content_->extra; }

void BenchReport::add(const nlohmann::json& row) {
  content_->rows.push_back(row);
  std::string text;
  for (const std::string& column : columns_)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", column,
                        cell(content_->rows.back().value(column, nlohmann::json())));
  fmt::print(stderr, "{}\n", text);
}

void BenchReport::print(bool json) const {
  if (json) {
    nlohmann::json out = content_->extra;
    out["bench"] = name_;
    out["device"] = device_.name;
    out["precision"] = device_.precision;
    out["rows"] = content_->rows;
    fmt::print("{}\n", out.dump());
    return;
  }
  std::vector<Table::Column> columns;
  for (const std::string& name : columns_) {
    const bool text = !content_->rows.empty() && content_->rows[0][name].is_string();
    columns.push_back({name, text ? Align::kLeft : Align::kRight});
  }
  Table table(columns);
  for (const auto& row : content_->rows) {
    std::vector<std::string> cells;
    for (const std::string& name : columns_)
      cells.push_back(row.contains(name) ? cell(row[name]) : "-");
    table.add_row(cells);
  }
  fmt::print("{}, {}\n{}", device_.name, device_.precision, table.str());
}

}  // namespace refract
