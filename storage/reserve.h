// Reserve: a file (store/reserve) that holds disk space back, so that on a full disk what is finished can still be recorded
// and garbage can still be collected, which itself needs space in SQLite's log. Not thread-safe.
//
//   held ──(a commit meets a full disk: Release, commit again)──▶ spent ──(Keep, once there is space)──▶ held
//
// While it is spent no new work is accepted; the coordinator's loop asks Keep again and again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "storage/index.h"

namespace pare::storage {

// More than the transactions of a turn and of a collection, and the pages that a checkpoint moves into the database; the log itself
// (at most 32 MiB between two checkpoints, storage/index.cc) keeps the space that it has.
inline constexpr int64_t kReserveBytes = int64_t{16} << 20;

class Reserve {
 public:
  explicit Reserve(std::string path, int64_t bytes = kReserveBytes) : path_(std::move(path)), bytes_(bytes) {}

  // Makes the file whole if it is not; cheap when it is. kNoSpace says how much is missing for what.
  Status Keep();
  // Gives the space to whoever writes next.
  void Release();
  bool held() const { return held_; }

 private:
  std::string path_;
  int64_t bytes_;
  bool held_ = false;
};

// An index whose Commit spends the reserve rather than fail on a full disk. Both outlive it.
std::unique_ptr<Index> NewReservedIndex(std::unique_ptr<Index> inner, Reserve& reserve);

}  // namespace pare::storage
