// Rows of figures: a line for each while it is measured, a table or JSON at the end.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/device.h"

namespace refract {

class BenchReport {
 public:
  // `columns`: keys of the rows, shown in this order; numbers with 4 significant digits.
  BenchReport(std::string name, BenchDevice device, std::vector<std::string> columns);
  BenchReport(BenchReport&&) noexcept;
  BenchReport& operator=(BenchReport&&) noexcept;
  ~BenchReport();

  // Keeps a row, and shows it on standard error.
  void add(const nlohmann::json& row);
  // On standard output: the table for people, or one JSON object.
  void print(bool json) const;
  nlohmann::json& extra();  // further keys of the JSON object

 private:
  std::string name_;
  BenchDevice device_;
  std::vector<std::string> columns_;
  struct Content;  // keeps the JSON library out of this header
  std::unique_ptr<Content> content_;
};

}  // namespace refract
