#include "core/foreign_bytes.h"

#include <cctype>

#include "core/error.h"

namespace refract {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view bytes, kind;
};

// Compressed text is read, but by its name: .txt.gz, .jsonl.zst.
constexpr Magic kMagics[] = {
    {"\x28\xb5\x2f\xfd"sv, "zstd data; name it .txt.zst or .jsonl.zst if it is text"},
    {"PK\x03\x04"sv, "a zip archive (what torch.save() writes is one); unpack or convert it"},
    {"\x93NUMPY"sv, "a NumPy array; write its numbers alone: a.astype('uint16').tofile('x.bin')"},
    {"\xfd"
     "7zXZ\0"sv,
     "xz data; unpack it with xz -d"},
    {"7z\xbc\xaf\x27\x1c"sv, "a 7z archive; unpack it"},
    {"%PDF-"sv, "a PDF document; convert it to text"},
    {"PAR1"sv, "a Parquet file; let its name end in .parquet"},
    {"\x89PNG"sv, "a picture (PNG)"},
    {"\x7f"
     "ELF"sv,
     "a program (ELF)"},
    {"\x89HDF"sv, "an HDF5 file"},
    {"GGUF"sv, "a GGUF model"},
    {"SQLite format 3"sv, "an SQLite database"},
    {"<?xml"sv, "an XML page, as a failed download leaves it; download it again"},
};

std::string lower_start(std::string_view head) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  while (!head.empty() && std::isspace(static_cast<unsigned char>(head[0]))) head.remove_prefix(1);
  std::string start(head.substr(0, 16));
  for (char& c : start) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return start;
}

bool is_gzip(std::string_view head) {
  return head.size() >= 4 && head.starts_with("\x1f\x8b\x08") &&
         (static_cast<unsigned char>(head[3]) & 0xe0) == 0;
}

bool is_bzip2(std::string_view head) {
  return head.size() >= 10 && head.starts_with("BZh") && head.substr(4, 6) == "1AY&SY";
}

}  // namespace

std::string stand_in(std::string_view head) {
  if (head.starts_with("version https://git-lfs.github.com/spec/")) {
    return "a Git LFS pointer and not the file itself; fetch it with: git lfs pull";
  }
  if (head == "Entry not found" || head == "Entry not found\n")  // the Hub's
    return "the answer of a failed download; download it again";
  const std::string start = lower_start(head);
  if (start.starts_with("<!doctype html") || start.starts_with("<html")) {
    return "an HTML page, as a failed download leaves it; download it again";
  }
  return "";
}

std::string foreign_bytes(std::string_view head) {
  if (std::string kind = stand_in(head); !kind.empty()) return kind;
  for (const Magic& magic : kMagics) {
    if (head.starts_with(magic.bytes)) return std::string(magic.kind);
  }
  if (is_gzip(head)) return "gzip data; name it .txt.gz or .jsonl.gz if it is text";
  if (is_bzip2(head)) return "bzip2 data; unpack it with bzip2 -d";
  return "";
}

void refuse_foreign_bytes(const std::filesystem::path& path, std::string_view head,
                          std::string_view wanted) {
  const std::string kind = foreign_bytes(head);
  if (!kind.empty()) fail("'{}' is not {}: it is {}", path.string(), wanted, kind);
}

}  // namespace refract
