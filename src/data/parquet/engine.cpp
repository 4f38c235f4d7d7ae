#include "data/parquet/engine.h"

#include <arrow/io/file.h>
#include <parquet/column_reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

namespace refract {
namespace {

constexpr size_t kBlockBytes = 1 << 20;
constexpr int64_t kBatch = 1024;      // rows asked of a page at a time
constexpr int64_t kBuffer = 1 << 20;  // bytes read ahead of the pages
constexpr int kNamed = 20;            // columns in a message

[[noreturn]] void refuse(const std::string& why) { throw std::runtime_error(why); }

std::string columns_of(const parquet::SchemaDescriptor& schema) {
  std::string names;
  for (int i = 0; i < std::min(schema.num_columns(), kNamed); ++i)
    names.append(i > 0 ? ", " : "").append(schema.Column(i)->path()->ToDotString());
  if (schema.num_columns() > kNamed)
    names.append(" and ").append(std::to_string(schema.num_columns() - kNamed)).append(" more");
  return names;
}

// Whether a column's bytes are a text, or may be one that an old writer did not mark.
bool may_be_text(const parquet::ColumnDescriptor& column) {
  if (column.physical_type() != parquet::Type::BYTE_ARRAY) return false;
  const auto& type = column.logical_type();
  return !type || type->is_string() || type->is_JSON() || type->is_enum() || type->is_none() ||
         type->is_invalid();
}

int find_column(const parquet::SchemaDescriptor& schema, const std::string& name) {
  bool above = false;  // of other columns
  for (int i = 0; i < schema.num_columns(); ++i) {
    const parquet::ColumnDescriptor& column = *schema.Column(i);
    const std::string path = column.path()->ToDotString();
    above = above || path.rfind(name + ".", 0) == 0;
    if (path != name) continue;
    const std::string quoted = "the column '" + name + "' ";
    if (column.max_repetition_level() > 0) refuse(quoted + "holds lists, not one text a row");
    if (!may_be_text(column)) {
      const auto& type = column.logical_type();
      refuse(quoted + "holds no text but " + parquet::TypeToString(column.physical_type()) +
             (type && !type->is_none() ? " (" + type->ToString() + ")" : ""));
    }
    return i;
  }
  refuse((above ? "the column '" + name + "' is no text but has columns of its own"
                : "it has no column '" + name + "'") +
         " (there are: " + columns_of(schema) + "); name the text's with data.text_field");
}

class ParquetRows : public TextRows {
 public:
  ParquetRows(const std::string& file, const std::string& column) {
    parquet::ReaderProperties properties = parquet::default_reader_properties();
    properties.enable_buffered_stream();  // page by page, however large a row group is
    properties.set_buffer_size(kBuffer);
    properties.set_page_checksum_verification(true);
    auto source = arrow::io::ReadableFile::Open(file);
    if (!source.ok()) refuse(source.status().message());
    file_ = parquet::ParquetFileReader::Open(*source, properties);
    column_ = find_column(*file_->metadata()->schema(), column);
    name_ = column;
    rows_ = file_->metadata()->num_rows();
  }

  bool read(TextBlock& block) override {
    while (block.bytes.size() < kBlockBytes) {
      if (row_ == batch_) {
        if (left_ == 0 && !next_group()) break;
        read_batch();
      }
      copy_rows(block);
    }
    return !block.ends.empty();
  }

  double part_read() const override {
    return rows_ > 0 ? static_cast<double>(done_) / static_cast<double>(rows_) : 1;
  }

 private:
  // False behind the last one.
  bool next_group() {
    const auto metadata = file_->metadata();
    while (left_ == 0) {
      if (group_ == metadata->num_row_groups()) return false;
      const auto group = metadata->RowGroup(group_);
      if (group->ColumnChunk(column_)->crypto_metadata())
        refuse("the column '" + name_ + "' is encrypted");
      left_ = group->num_rows();
      if (left_ < 0) refuse("a row group counts " + std::to_string(left_) + " rows");
      reader_.reset();
      row_group_ = file_->RowGroup(group_++);
      reader_ = std::dynamic_pointer_cast<parquet::ByteArrayReader>(row_group_->Column(column_));
      if (!reader_) refuse("the column '" + name_ + "' holds no text");
    }
    return true;
  }

  // Values point into the page that the reader holds, and stay until the next call.
  void read_batch() {
    row_ = batch_ = value_ = values_read_ = 0;
    const int64_t wanted = std::min(left_, kBatch);
    const int64_t rows = reader_->HasNext()
                             ? reader_->ReadBatch(wanted, levels_, nullptr, values_, &values_read_)
                             : 0;
    if (rows <= 0) refuse("a row group ends before the " + std::to_string(left_) + " rows left");
    batch_ = rows;
    left_ -= rows;
  }

  // Rows of the batch, until the block is full: one value of a dictionary may stand in all of them.
  void copy_rows(TextBlock& block) {
    const int16_t present = reader_->descr()->max_definition_level();
    for (; row_ < batch_ && block.bytes.size() < kBlockBytes; ++row_, ++done_) {
      if (present == 0 || levels_[row_] == present) {
        if (value_ == values_read_) refuse("a page has fewer values than rows");
        const parquet::ByteArray& value = values_[value_++];
        block.bytes.append(reinterpret_cast<const char*>(value.ptr), value.len);
      }
      block.ends.push_back(block.bytes.size());
    }
  }

  std::unique_ptr<parquet::ParquetFileReader> file_;
  std::shared_ptr<parquet::RowGroupReader> row_group_;
  std::shared_ptr<parquet::ByteArrayReader> reader_;
  std::string name_;
  int column_ = 0, group_ = 0;
  int64_t left_ = 0, rows_ = 0, done_ = 0;  // of the group; of the file
  int64_t row_ = 0, batch_ = 0;             // the next row of the batch, of how many
  int64_t value_ = 0, values_read_ = 0;     // the next value of the batch, of how many
  int16_t levels_[kBatch] = {};
  parquet::ByteArray values_[kBatch];
};

}  // namespace
}  // namespace refract

refract::TextRows* refract_open_parquet(const char* file, const char* column) {
  return new refract::ParquetRows(file, column);
}
