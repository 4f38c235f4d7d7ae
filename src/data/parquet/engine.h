// The reader of Parquet files, in a library of its own: librefract_parquet.so.
//
// It is linked to Arrow's libraries, which the pyarrow wheel brings, and is opened with dlopen when
// the first such file is. Nothing of Arrow crosses its border: texts, numbers, and
// std::runtime_error.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace refract {

// Texts one behind the other: i is bytes [ends[i - 1], ends[i]).
struct TextBlock {
  std::string bytes;
  std::vector<size_t> ends;
};

// The texts of one column, row by row.
class TextRows {
 public:
  virtual ~TextRows() = default;
  // Puts the next rows into an empty block: about a megabyte, or the rest. A row whose value is
  // missing (null) is an empty text. False, and an empty block, behind the last row.
  virtual bool read(TextBlock& block) = 0;
  virtual double part_read() const = 0;  // of all rows
};

}  // namespace refract

// The only symbol that is looked up. `column` is the path of a value, "text" or "meta.text". The
// reader is the caller's; throws std::runtime_error, without the file's name.
extern "C" refract::TextRows* refract_open_parquet(const char* file, const char* column);
