#include "worker/collective/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace pare::collective {

Result<SharedMemory> SharedMemory::Create() {
  UniqueFd fd(memfd_create("pare-gang", MFD_CLOEXEC));
  if (!fd.valid()) return SystemError("memfd_create", errno);
  return SharedMemory(std::move(fd), true);
}

Result<SharedMemory> SharedMemory::Open(const std::string& name) {
  UniqueFd fd(::open(name.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return Error{ErrorCode::kUnreachable, SystemError("cannot open the memory " + name, errno).message};
  return SharedMemory(std::move(fd), false);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)), owner_(other.owner_), at_(std::exchange(other.at_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this == &other) return *this;
  Unmap();
  fd_ = std::move(other.fd_);
  owner_ = other.owner_;
  at_ = std::exchange(other.at_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

SharedMemory::~SharedMemory() { Unmap(); }

void SharedMemory::Unmap() {
  if (at_ != nullptr) munmap(at_, size_);
  at_ = nullptr;
  size_ = 0;
}

std::string SharedMemory::name() const { return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_.get()); }

Result<std::byte*> SharedMemory::Cover(size_t bytes) {
  if (bytes <= size_ && at_ != nullptr) return at_;
  bytes = bytes == 0 ? 1 : bytes;
  // Allocated at once: a page that is missing later would be a signal, not an error.
  int error = owner_ ? posix_fallocate(fd_.get(), 0, static_cast<off_t>(bytes)) : 0;
  if (error != 0) return Error{ErrorCode::kNoSpace, SystemError("cannot share " + std::to_string(bytes) + " bytes of memory", error).message};
  struct stat info {};
  if (fstat(fd_.get(), &info) != 0) return SystemError("fstat of shared memory", errno);
  if (static_cast<size_t>(info.st_size) < bytes) return Error{ErrorCode::kCorrupt, "shared memory: " + std::to_string(info.st_size) + " bytes, " + std::to_string(bytes) + " expected"};
  Unmap();
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (at == MAP_FAILED) return SystemError("mmap of shared memory", errno);
  at_ = static_cast<std::byte*>(at);
  size_ = bytes;
  return at_;
}

}  // namespace pare::collective
