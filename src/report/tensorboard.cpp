#include "report/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <charconv>
#include <chrono>

#include "core/error.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) ? 0x82f63b78u : 0u);
    table[i] = c;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

template <class Word>
void put_little_endian(std::string& out, Word value) {
  for (size_t i = 0; i < sizeof(Word); ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_bytes(std::string& out, uint8_t tag, std::string_view bytes) {
  out.push_back(static_cast<char>(tag));
  put_varint(out, bytes.size());
  out.append(bytes);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The fields that every Event has: wall_time (1, double) and step (2, int64).
std::string event_head(int64_t step) {
  std::string event(1, '\x09');
  put_little_endian(event, std::bit_cast<uint64_t>(now()));
  if (step != 0) {  // proto3 leaves zeros out
    event.push_back('\x10');
    put_varint(event, static_cast<uint64_t>(step));
  }
  return event;
}

std::string version_event() {
  std::string event = event_head(0);
  put_bytes(event, 0x1A, "brain.Event:2");
  return event;
}

// SessionLog (field 7) with status (field 1) START.
std::string restart_event(int64_t step) {
  std::string event = event_head(step);
  put_bytes(event, 0x3A, std::string_view("\x08\x01", 2));
  return event;
}

std::string scalar_value(std::string_view tag, float value) {
  std::string out;
  put_bytes(out, 0x0A, tag);
  out.push_back('\x15');
  put_little_endian(out, std::bit_cast<uint32_t>(value));
  return out;
}

// Seconds in the name of an event file, 0 for another file.
int64_t seconds_of(const std::string& name) {
  int64_t seconds = 0;
  if (!name.starts_with(kPrefix)) return 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
  return seconds;
}

std::string host_name() {
  std::array<char, 256> buffer{};
  return ::gethostname(buffer.data(), buffer.size() - 1) == 0 && buffer[0] ? buffer.data()
                                                                           : "localhost";
}

fs::path new_event_file(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("can't make the folder '{}': {}", folder.string(), error.message());
  auto seconds = static_cast<int64_t>(now());
  for (const auto& entry : fs::directory_iterator(folder)) {
    seconds = std::max(seconds, seconds_of(entry.path().filename().string()) + 1);
  }
  return folder / fmt::format("{}{:010}.{}.{}.0", kPrefix, seconds, host_name(), ::getpid());
}

// One TFRecord: u64 length, masked CRC of the length, data, masked CRC of the data.
std::string tfrecord(std::string_view data) {
  std::string record;
  record.reserve(data.size() + 16);
  put_little_endian(record, static_cast<uint64_t>(data.size()));
  put_little_endian(record, masked_crc32c(record));
  record.append(data);
  put_little_endian(record, masked_crc32c(data));
  return record;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = 0xffffffffu;
  for (char byte : bytes) c = (c >> 8) ^ kCrcTable[(c ^ static_cast<uint8_t>(byte)) & 0xff];
  return ~c;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

TensorBoardWriter::TensorBoardWriter(const fs::path& folder, int64_t resume_step)
    : file_(new_event_file(folder), "the TensorBoard events") {
  std::string head = tfrecord(version_event());
  if (resume_step != MetricsLog::kFresh) head += tfrecord(restart_event(resume_step + 1));
  file_.append(head);
}

void TensorBoardWriter::write(int64_t step, MetricValues values) {
  std::string summary;
  for (const auto& [name, value] : values) {
    put_bytes(summary, 0x0A, scalar_value(name, static_cast<float>(value)));
  }
  std::string event = event_head(step);
  put_bytes(event, 0x2A, summary);
  file_.append(tfrecord(event));
}

}  // namespace refract
