// Directories and bytes for the tests of storage/.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include "common/random.h"
#include "common/result.h"

namespace pare::storage {

// A directory that goes with the object.
class TemporaryDirectory {
 public:
  // kMemory: in memory if the system has such a place. For many small files, which cost a disk's file system milliseconds.
  enum class Place { kDisk, kMemory };
  explicit TemporaryDirectory(Place place = Place::kDisk) {
    bool memory = place == Place::kMemory && ::access("/dev/shm", W_OK | X_OK) == 0;
    path_ = (memory ? "/dev/shm/" : testing::TempDir()) + "pare_storage_XXXXXX";  // TempDir ends with a slash
    CHECK(mkdtemp(path_.data()) != nullptr);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  std::string bytes(in ? static_cast<size_t>(std::max<std::streamoff>(0, in.tellg())) : 0, '\0');
  in.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(std::max<std::streamsize>(0, in.gcount())));
  return bytes;
}
inline void WriteBytes(const std::string& path, std::string_view bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

// Runs `body` in a child as a user without rights on our files; its exit code.
inline int AsNobody(const std::function<bool()>& body) {
  pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(2);
    ::_exit(body() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Incompressible, the same for the same seed.
inline std::string RandomBytes(size_t size, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest);
  std::string bytes(size, '\0');
  for (size_t at = 0; at < size; at += 4) {
    uint32_t bits = random.Bits();
    std::memcpy(bytes.data() + at, &bits, std::min<size_t>(4, size - at));
  }
  return bytes;
}

inline size_t FilesIn(const std::string& directory) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) count += entry.is_regular_file();
  return count;
}

template <typename T>
ErrorCode CodeOf(const T& result) {
  CHECK(!result.ok());
  return result.error().code;
}
template <typename T>
std::string MessageOf(const T& result) {
  return result.ok() ? "accepted" : result.error().message;
}

}  // namespace pare::storage
