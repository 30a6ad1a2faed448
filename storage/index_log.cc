#include "storage/index_log.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "common/files.h"
#include "storage/blob_files.h"

namespace pare::storage {
namespace {

constexpr size_t kHeaderBytes = 32, kFrameHeaderBytes = 24, kSaltsAt = 16, kFrameSaltsAt = 8;
constexpr uint32_t kLittleEndianSums = 0x377f0682, kBigEndianSums = 0x377f0683, kFormat = 3'007'000;
constexpr size_t kPageBytes = 4096;  // of every index
constexpr int kLooks = 3;            // a coordinator may be writing
constexpr size_t kSharedBytes = 48, kSharedFramesAt = 16, kSharedSaltsAt = 32, kSharedSumsAt = 40;  // of one copy of the shared header

uint32_t BigEndian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

void PutBigEndian(std::string& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (24 - 8 * i));
}

struct Sums {
  uint32_t first = 0, second = 0;
  bool operator==(const Sums&) const = default;
};

// Section 4.2. The words' byte order is a property of the log.
Sums Add(Sums sums, std::string_view bytes, bool big_endian) {
  auto word = [&](size_t at) {
    uint32_t value = BigEndian(bytes, at);
    return big_endian ? value : __builtin_bswap32(value);
  };
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    sums.first += word(at) + sums.second;
    sums.second += word(at + 4) + sums.first;
  }
  return sums;
}

Sums SumsAt(std::string_view bytes, size_t at) { return {BigEndian(bytes, at), BigEndian(bytes, at + 4)}; }

class Log {
 public:
  explicit Log(std::string_view bytes) : bytes_(bytes) {}

  size_t frames() const { return bytes_.size() < kHeaderBytes ? 0 : (bytes_.size() - kHeaderBytes) / (kFrameHeaderBytes + kPageBytes); }
  std::string_view frame(size_t i) const { return bytes_.substr(kHeaderBytes + i * (kFrameHeaderBytes + kPageBytes), kFrameHeaderBytes + kPageBytes); }
  std::string_view salts() const { return bytes_.substr(kSaltsAt, 8); }
  bool big_endian() const { return BigEndian(bytes_, 0) == kBigEndianSums; }
  bool known() const { return BigEndian(bytes_, 0) == kBigEndianSums || BigEndian(bytes_, 0) == kLittleEndianSums; }
  bool header_checks() const {
    return known() && BigEndian(bytes_, 4) == kFormat && BigEndian(bytes_, 8) == kPageBytes && Add({}, bytes_.substr(0, 24), big_endian()) == SumsAt(bytes_, 24);
  }
  bool ours(size_t i, std::string_view salts) const { return frame(i).substr(kFrameSaltsAt, 8) == salts; }
  bool commits(size_t i) const { return BigEndian(frame(i), 4) != 0; }

  // Frames before the first that does not check.
  size_t sound() const {
    Sums sums = SumsAt(bytes_, 24);
    for (size_t i = 0; i < frames(); ++i) {
      std::string_view f = frame(i);
      sums = Add(Add(sums, f.substr(0, 8), big_endian()), f.substr(kFrameHeaderBytes), big_endian());
      if (!ours(i, salts()) || sums != SumsAt(f, 16)) return i;
    }
    return frames();
  }
  size_t CommitsFrom(size_t first, std::string_view salts) const {
    size_t count = 0;
    for (size_t i = first; i < frames(); ++i) count += ours(i, salts) && commits(i) ? 1 : 0;
    return count;
  }

 private:
  std::string_view bytes_;
};

// What is committed for certain.
struct Committed {
  std::string salts;  // of the log in which it is; empty: nothing is known
  size_t frames = 0;
};

Committed CommittedBeside(const std::string& path) {
  auto shared = FirstBytes(path + "-shm", 2 * kSharedBytes);
  // Two copies that are written one after the other: they differ while that is done, and for ever if the process was killed in it.
  if (!shared.ok() || shared->size() < 2 * kSharedBytes || shared->compare(0, kSharedBytes, *shared, kSharedBytes, kSharedBytes) != 0) return {};
  auto word = [&](size_t at) {  // in the order of this machine
    uint32_t value = 0;
    std::memcpy(&value, shared->data() + at, sizeof value);
    return value;
  };
  Sums sums = Add({}, std::string_view(*shared).substr(0, kSharedSumsAt), std::endian::native == std::endian::big);
  if (word(0) != kFormat || sums != Sums{word(kSharedSumsAt), word(kSharedSumsAt + 4)}) return {};
  return {shared->substr(kSharedSaltsAt, 8), word(kSharedFramesAt)};
}

// Frames that do not check although they are committed.
std::string ProblemOfEnd(const Log& log, const Committed& committed) {
  size_t sound = log.sound();
  if (committed.salts != log.salts() || sound >= committed.frames) return "";
  bool cut = log.frames() < committed.frames && sound == log.frames();
  return "its log " + (cut ? "ends after frame " + std::to_string(sound) : "is damaged in frame " + std::to_string(sound + 1)) + " of " + std::to_string(committed.frames) +
         ", so the transactions that were committed last, up to " + std::to_string(committed.frames - sound) + ", are not read";
}

std::string Problem(std::string_view bytes, const Committed& committed) {
  if (bytes.size() < kHeaderBytes) return "";
  Log log(bytes);
  if (log.frames() == 0) return log.header_checks() ? ProblemOfEnd(log, committed) : "";
  if (!log.header_checks()) {
    // Never written, or space that a file system gave without its content.
    if (bytes.substr(0, kHeaderBytes).find_first_not_of('\0') == std::string_view::npos) return "";
    return "the header of its log is damaged, so what was committed last is not read";
  }
  size_t sound = log.sound(), commits = log.CommitsFrom(sound, log.salts());
  if (commits < 2) return ProblemOfEnd(log, committed);
  return "its log is damaged in frame " + std::to_string(sound + 1) + " of " + std::to_string(log.frames()) + ", so " + std::to_string(commits) + " or more transactions behind it are not read";
}

std::string LogOf(const std::string& path) { return path + "-wal"; }

}  // namespace

std::string ProblemOfLog(const std::string& path) {
  std::string problem;
  for (int look = 0; look < kLooks; ++look) {
    Committed committed = CommittedBeside(path);  // before the log, which may grow meanwhile
    auto bytes = ReadFile(LogOf(path));
    if (!bytes.ok()) return bytes.error().code == ErrorCode::kNotFound ? "" : bytes.error().message;
    std::string now = Problem(*bytes, committed);
    if (now.empty() || (look > 0 && now == problem)) return now;
    problem = std::move(now);
  }
  return "";  // another one each time: it is being written
}

Status MendLog(const std::string& path) {
  auto read = ReadFile(LogOf(path));
  if (!read.ok()) return read.error().code == ErrorCode::kNotFound ? Ok() : Status(read.error());
  std::string bytes = *std::move(read);
  if (Problem(bytes, {}).empty()) return Ok();
  Log log(bytes);
  // A damaged header: its salts are those of the frames.
  std::string salts(log.header_checks() ? log.salts() : log.frame(0).substr(kFrameSaltsAt, 8));
  bool big_endian = log.known() && log.big_endian();
  // Up to the last commit. A frame with other salts is a damaged one if two commits are behind it, else the gap of a torn transaction.
  size_t gap = 0, end = 0;
  while (gap < log.frames() && log.ours(gap, salts)) ++gap;
  size_t last = log.CommitsFrom(gap, salts) >= 2 ? log.frames() : gap;
  for (size_t i = 0; i < last; ++i) {
    if (log.ours(i, salts) && log.commits(i)) end = i + 1;
  }
  bytes.resize(kHeaderBytes + end * (kFrameHeaderBytes + kPageBytes));
  PutBigEndian(bytes, 0, big_endian ? kBigEndianSums : kLittleEndianSums);
  PutBigEndian(bytes, 4, kFormat);
  PutBigEndian(bytes, 8, kPageBytes);
  bytes.replace(kSaltsAt, 8, salts);
  Sums sums = Add({}, std::string_view(bytes).substr(0, 24), big_endian);
  PutBigEndian(bytes, 24, sums.first);
  PutBigEndian(bytes, 28, sums.second);
  for (size_t i = 0; i < end; ++i) {
    size_t at = kHeaderBytes + i * (kFrameHeaderBytes + kPageBytes);
    bytes.replace(at + kFrameSaltsAt, 8, salts);
    std::string_view frame = std::string_view(bytes).substr(at, kFrameHeaderBytes + kPageBytes);
    sums = Add(Add(sums, frame.substr(0, 8), big_endian), frame.substr(kFrameHeaderBytes), big_endian);
    PutBigEndian(bytes, at + 16, sums.first);
    PutBigEndian(bytes, at + 20, sums.second);
  }
  return WriteFileDurably(LogOf(path), bytes);
}

}  // namespace pare::storage
