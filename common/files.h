// Files: the few durable file operations that storage, snapshots and exports share. All paths are plain strings of the
// operating system. Errors carry the path and the system's reason; a full disk is kNoSpace.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/result.h"

namespace pare {

// An open file descriptor, closed when the object goes.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

// The whole file, at most `limit` bytes (kInvalid beyond). kNotFound where there is none.
Result<std::string> ReadFile(const std::string& path, size_t limit = size_t{16} << 30);

// Writes all bytes, retrying short writes.
Status WriteAll(int fd, std::span<const std::byte> bytes, std::string_view path);

// Afterwards the file holds exactly `bytes`, also after a power cut: temporary file beside it, fsync, rename, fsync of
// the directory. On error the old file is untouched and the temporary file is gone.
Status WriteFileDurably(const std::string& path, std::string_view bytes);

// fsync of a directory: makes renames and creations in it durable.
Status SyncDirectory(const std::string& path);

// mkdir -p.
Status MakeDirectories(const std::string& path);

// A file mapped read-only into memory; unmapped when the last copy of the pointer goes.
struct MappedFile {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep_alive;
};
Result<MappedFile> MapFile(const std::string& path);

// The directory of the running executable: siblings (pare-coordinator, pare-runner) are found beside it.
std::string ExecutableDirectory();

}  // namespace pare
