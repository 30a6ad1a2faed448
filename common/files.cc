#include "common/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace pare {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}
int UniqueFd::release() { return std::exchange(fd_, -1); }
void UniqueFd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<std::string> ReadFile(const std::string& path, size_t limit) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return SystemError("cannot examine " + path, errno);
  if (S_ISDIR(info.st_mode)) return Error{ErrorCode::kInvalid, path + " is a directory, a file is needed"};
  std::string bytes;
  bytes.resize(static_cast<size_t>(info.st_size));
  size_t have = 0;
  // Reads past the size that fstat gave, too: pipes and files under /proc report none.
  for (;;) {
    if (have == bytes.size()) bytes.resize(have + (have == 0 ? 65536 : 1));
    ssize_t n = ::read(fd.get(), bytes.data() + have, bytes.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("cannot read " + path, errno);
    if (n == 0) break;
    have += static_cast<size_t>(n);
    if (have > limit) {
      return Error{ErrorCode::kInvalid, path + ": larger than the limit of " + std::to_string(limit) + " bytes"};
    }
    if (have == bytes.size()) bytes.resize(have + 65536);
  }
  bytes.resize(have);
  return bytes;
}

Status WriteAll(int fd, std::span<const std::byte> bytes, std::string_view path) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("cannot write " + std::string(path), errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return Ok();
}

Status WriteFileDurably(const std::string& path, std::string_view bytes) {
  std::string temporary = path + ".tmp." + std::to_string(::getpid());
  Status status = [&]() -> Status {
    UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!fd.valid()) return SystemError("cannot create " + temporary, errno);
    TRY(WriteAll(fd.get(), std::as_bytes(std::span(bytes)), temporary));
    if (::fsync(fd.get()) != 0) return SystemError("cannot sync " + temporary, errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0) return SystemError("cannot rename to " + path, errno);
    return Ok();
  }();
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  std::string parent = std::filesystem::path(path).parent_path().string();
  return SyncDirectory(parent.empty() ? "." : parent);
}

Status SyncDirectory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open directory " + path, errno);
  if (::fsync(fd.get()) != 0) return SystemError("cannot sync directory " + path, errno);
  return Ok();
}

Status MakeDirectories(const std::string& path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) return SystemError("cannot create directory " + path, code.value());
  return Ok();
}

Result<MappedFile> MapFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return SystemError("cannot examine " + path, errno);
  auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedFile{};
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) return SystemError("cannot map " + path, errno);
  std::shared_ptr<const void> keep(address, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return MappedFile{{static_cast<const std::byte*>(address), size}, std::move(keep)};
}

std::string ExecutableDirectory() {
  std::error_code code;
  auto path = std::filesystem::read_symlink("/proc/self/exe", code);
  return code ? "." : path.parent_path().string();
}

}  // namespace pare
