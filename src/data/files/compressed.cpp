#include "data/files/compressed.h"

#include <dlfcn.h>
#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/foreign_bytes.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPiece = 1 << 20;
// A file of a few bytes can unpack to any size. What a caller holds at a time, a document or a
// line, may have so many bytes and, beyond them, so many times what was read: no text packs better.
constexpr size_t kPlainBytes = size_t{64} << 20, kPlainTimes = 250;

std::string lower_extension(const fs::path& path) {
  std::string text = path.extension().string();
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// What both readers share: the file, and how far it is read.
class Reader : public CompressedFile {
 public:
  explicit Reader(const fs::path& path) : path_(path), file_(path) {}
  int64_t bytes_read() const override { return static_cast<int64_t>(position_); }

 protected:
  std::string_view rest() const {
    const std::span<const std::byte> left = file_.bytes().subspan(position_);
    return {reinterpret_cast<const char*>(left.data()), left.size()};
  }
  void check_growth(const std::string& out) const {
    if (out.size() <= kPlainBytes || out.size() / kPlainTimes <= position_) return;
    fail(
        "'{}' unpacks to more than {} times its size within one document or line, which text never "
        "does; unpack it yourself if it is right",
        path_.string(), kPlainTimes);
  }
  [[noreturn]] void cut_off() const {
    fail("'{}' is cut off: its compressed data end early; copy or download it again",
         path_.string());
  }
  // `magic`: what such data begin with.
  [[noreturn]] void damaged(const char* format, std::string_view magic) const {
    if (position_ == 0 && !rest().starts_with(magic)) {
      const std::string kind = foreign_bytes(rest());
      fail("'{}' is not {} data{}", path_.string(), format, kind.empty() ? "" : ": it is " + kind);
    }
    fail("'{}' is damaged: its {} data can't be read from byte {} on; copy or download it again",
         path_.string(), format, position_);
  }

  fs::path path_;
  MappedFile file_;
  size_t position_ = 0;
};

class GzipFile : public Reader {
 public:
  explicit GzipFile(const fs::path& path) : Reader(path) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (::inflateInit2(&stream_, kGzipOnly) != Z_OK) fail("zlib can't start: out of memory");
  }
  ~GzipFile() override { ::inflateEnd(&stream_); }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  // A piece goes over the ends of members: a file may have one for every few bytes.
  bool read(std::string& out) override {
    if (!inside_ && only_padding()) return false;
    const size_t before = out.size();
    out.resize(before + kPiece);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data() + before);
    stream_.avail_out = static_cast<uInt>(kPiece);
    do {
      unpack();
    } while (stream_.avail_out > 0 && (inside_ || !only_padding()));
    out.resize(before + kPiece - stream_.avail_out);
    check_growth(out);
    return true;
  }

 private:
  void unpack() {
    const std::string_view in = rest().substr(0, kPiece);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): zlib does not write to its input
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    const uInt room = stream_.avail_out;
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      damaged("gzip", "\x1f\x8b");
    const size_t used = in.size() - stream_.avail_in;
    inside_ = status != Z_STREAM_END;
    if (inside_ && used == 0 && stream_.avail_out == room) cut_off();
    position_ += used;
    if (!inside_) ::inflateReset(&stream_);
  }

  // gzip itself allows zeros behind the last member.
  bool only_padding() const {
    const std::string_view left = rest();
    return position_ > 0 && left.find_first_not_of('\0') == std::string_view::npos;
  }

  z_stream stream_{};
  bool inside_ = false;  // a member
};

// The part of zstd's stable interface that is used here, declared by ourselves: its headers are not
// needed to build.
struct ZstdBuffer {
  void* data;
  size_t size, position;
};

struct Zstd {
  void* (*create)();
  size_t (*release)(void*);
  size_t (*decompress)(void*, ZstdBuffer* out, ZstdBuffer* in);
  unsigned (*is_error)(size_t);
};

const Zstd& zstd() {
  static const Zstd library = [] {
    void* handle = ::dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle) fail("a .zst file needs the library libzstd.so.1 (package libzstd1)");
    const auto find = [&]<class F>(F& function, const char* name) {
      function = reinterpret_cast<F>(::dlsym(handle, name));
      if (!function) fail("the library libzstd.so.1 is too old: it has no {}", name);
    };
    Zstd found{};
    find(found.create, "ZSTD_createDStream");
    find(found.release, "ZSTD_freeDStream");
    find(found.decompress, "ZSTD_decompressStream");
    find(found.is_error, "ZSTD_isError");
    return found;
  }();
  return library;
}

class ZstdFile : public Reader {
 public:
  explicit ZstdFile(const fs::path& path) : Reader(path), stream_(zstd().create()) {
    if (!stream_) fail("zstd can't start: out of memory");
  }
  ~ZstdFile() override { zstd().release(stream_); }
  ZstdFile(const ZstdFile&) = delete;
  ZstdFile& operator=(const ZstdFile&) = delete;

  // As of gzip, over the ends of frames.
  bool read(std::string& out) override {
    if (at_end()) return false;
    const size_t before = out.size();
    out.resize(before + kPiece);
    ZstdBuffer to{out.data() + before, kPiece, 0};
    do {
      unpack(to);
    } while (to.position < kPiece && !at_end());
    out.resize(before + to.position);
    check_growth(out);
    return true;
  }

 private:
  bool at_end() const { return !inside_ && position_ > 0 && rest().empty(); }

  void unpack(ZstdBuffer& to) {
    const std::string_view left = rest().substr(0, kPiece);
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast): zstd does not write to its input
    ZstdBuffer in{const_cast<char*>(left.data()), left.size(), 0};
    const size_t before = to.position, status = zstd().decompress(stream_, &to, &in);
    if (zstd().is_error(status) != 0) damaged("zstd", "\x28\xb5\x2f\xfd");
    inside_ = status != 0;
    if (inside_ && in.position == 0 && to.position == before) cut_off();
    position_ += in.position;
  }

  void* stream_;
  bool inside_ = false;  // a frame
};

}  // namespace

bool is_compressed(const fs::path& path) {
  const std::string extension = lower_extension(path);
  return extension == ".gz" || extension == ".zst";
}

std::unique_ptr<CompressedFile> open_compressed(const fs::path& path) {
  if (lower_extension(path) == ".gz") return std::make_unique<GzipFile>(path);
  return std::make_unique<ZstdFile>(path);
}

}  // namespace refract
