#include "data/files/parquet.h"

#include <dlfcn.h>
#include <link.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/foreign_bytes.h"
#include "core/untrusted.h"

// The build says what it found (cmake/Arrow.cmake).
#ifndef REFRACT_PYARROW_VERSION
#define REFRACT_PYARROW_VERSION ""
#define REFRACT_ARROW_LIBRARY ""
#define REFRACT_PARQUET_LIBRARY ""
#endif

namespace refract {
namespace {

namespace fs = std::filesystem;

using OpenParquet = decltype(&refract_open_parquet);

constexpr const char* kLibrary = "librefract_parquet.so";
constexpr size_t kMagicBytes = 4;
constexpr size_t kLeastBytes = 12;  // magic, length of the footer, magic

// Where the reader's library may lie: beside the program's others, or beside the library that this
// code is in, whose program is somebody else's.
std::vector<fs::path> places() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::vector<fs::path> all = {program.parent_path() / "lib" / kLibrary, program / kLibrary};
  Dl_info info{};
  void* map = nullptr;
  if (dladdr1(reinterpret_cast<const void*>(&open_parquet), &info, &map, RTLD_DL_LINKMAP) == 0 ||
      !map)
    return all;
  const char* own = static_cast<const link_map*>(map)->l_name;  // empty for the program itself
  if (own && *own) all.push_back(fs::absolute(own, ignored).parent_path() / kLibrary);
  return all;
}

// Arrow's libraries lie in the folder of pyarrow, beside that of the torch which the program runs
// on; one that is open already is found by its name.
void open_arrow_beside_torch() {
  void* const torch = dlopen("libc10.so", RTLD_NOW | RTLD_NOLOAD);
  if (!torch) return;
  link_map* map = nullptr;
  if (dlinfo(torch, RTLD_DI_LINKMAP, static_cast<void*>(&map)) == 0 && map && map->l_name) {
    const fs::path packages = fs::path(map->l_name).parent_path().parent_path().parent_path();
    for (const char* name : {REFRACT_ARROW_LIBRARY, REFRACT_PARQUET_LIBRARY})
      dlopen((packages / "pyarrow" / name).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  dlclose(torch);
}

struct Opened {
  OpenParquet open = nullptr;
  std::string trouble;
};

Opened load() {
  Opened opened;
  const std::string pyarrow = REFRACT_PYARROW_VERSION;
  if (pyarrow.empty()) {
    opened.trouble =
        "this program was built without pyarrow; install it beside torch (pip install pyarrow) and "
        "build again, or convert the file to .jsonl";
    return opened;
  }
  open_arrow_beside_torch();
  void* library = nullptr;
  std::string why;
  for (const fs::path& place : places()) {
    if (!library) library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    std::error_code ignored;
    if (!library && fs::exists(place, ignored)) why = dlerror();
  }
  if (!library) {
    if (why.empty()) why.append(kLibrary).append(" is not there");
    opened.trouble = fmt::format(
        "Arrow's libraries are missing; install them beside torch: pip install pyarrow=={} ({})",
        pyarrow, why);
    return opened;
  }
  opened.open = reinterpret_cast<OpenParquet>(dlsym(library, "refract_open_parquet"));
  if (!opened.open) opened.trouble = fmt::format("'{}' is not of this program", kLibrary);
  return opened;
}

const Opened& engine() {
  static const Opened opened = load();
  return opened;
}

[[noreturn]] void refuse(const fs::path& file, const std::exception& error) {
  const std::string text = error.what();
  fail("'{}' can't be read as Parquet: {}", file.string(),
       shown(text.substr(0, text.find('\n')), 800));
}

// Adds the file's name to what the engine says.
class NamedRows : public TextRows {
 public:
  NamedRows(fs::path file, std::unique_ptr<TextRows> rows)
      : file_(std::move(file)), rows_(std::move(rows)) {}
  bool read(TextBlock& block) override {
    try {
      return rows_->read(block);
    } catch (const std::exception& error) {
      refuse(file_, error);
    }
  }
  double part_read() const override { return rows_->part_read(); }

 private:
  fs::path file_;
  std::unique_ptr<TextRows> rows_;
};

[[noreturn]] void refuse_unread(const fs::path& file, int code) {
  throw SystemError(fmt::format("can't read '{}': {}", file.string(), std::strerror(code)), code);
}

// Parquet's own magic number stands at both ends.
void check_ends(const fs::path& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) refuse_unread(file, errno);
  char head[512] = {}, tail[kMagicBytes] = {};
  in.read(head, sizeof head);
  if (in.bad()) refuse_unread(file, errno);
  const std::string_view first(head, static_cast<size_t>(in.gcount()));
  in.clear();
  in.seekg(-static_cast<std::streamoff>(kMagicBytes), std::ios::end);
  in.read(tail, kMagicBytes);
  const std::string_view last(tail, static_cast<size_t>(in.gcount()));
  if (first.starts_with("PARE") || (first.starts_with("PAR1") && last == "PARE"))
    fail("'{}' is encrypted, and no keys can be given here; decrypt it first", file.string());
  if (!first.starts_with("PAR1")) {
    refuse_foreign_bytes(file, first, "Parquet");
    fail("'{}' is no Parquet file: it does not begin with PAR1", file.string());
  }
  if (first.size() < kLeastBytes || last != "PAR1") {
    fail(
        "'{}' is cut off: it does not end in the footer of a Parquet file; copy or download it "
        "again",
        file.string());
  }
}

}  // namespace

std::unique_ptr<TextRows> open_parquet(const fs::path& file, const std::string& column) {
  check_ends(file);
  const Opened& opened = engine();
  if (!opened.open) fail("'{}' is a Parquet file: {}", file.string(), opened.trouble);
  try {
    return std::make_unique<NamedRows>(
        file, std::unique_ptr<TextRows>(opened.open(file.c_str(), column.c_str())));
  } catch (const std::exception& error) {
    refuse(file, error);
  }
}

}  // namespace refract
