// SharedMemory: bytes that several processes of a host see, so that gradients need not go through sockets. Its owner makes it and
// lets it grow; others of the same user open it by name while the owner lives, and keep what they have mapped. Who may write
// when is between them. Gone when the last of them is.
#pragma once

#include <cstddef>
#include <string>

#include "common/files.h"

namespace pare::collective {

class SharedMemory {
 public:
  // kIo: the system has no such memory.
  static Result<SharedMemory> Create();
  // kUnreachable: the owner is gone, or of another host or user.
  static Result<SharedMemory> Open(const std::string& name);
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  std::string name() const;
  // At least so many bytes from here on; earlier pointers are void. kNoSpace: the owner's system has no room for them.
  // kCorrupt: the owner has not so many.
  Result<std::byte*> Cover(size_t bytes);

 private:
  SharedMemory(UniqueFd fd, bool owner) : fd_(std::move(fd)), owner_(owner) {}
  void Unmap();

  UniqueFd fd_;
  bool owner_;
  std::byte* at_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pare::collective
