// FaultDisk: a disk that fails as asked, and a model of what a power cut leaves. It stands between the C library and everything
// in this process, SQLite included: fault_disk.cc defines open, write, fsync, rename, … and the linker prefers them. The code
// under test knows nothing of it. While no FaultDisk exists, calls go straight to the kernel.
//
// A call that changes files below `root` counts, from 1 on; so does, on its own, a call that only looks: read, mmap of a file, flock,
// readdir. The model: bytes of a file are durable when the file has been synced
// since; a name is durable when its directory has been synced since; a rename is there in whole or not at all. fsync is
// not passed on to the real disk.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pare::storage {

enum class Fault {
  kNone,
  kCrash,      // the call and all after it have no effect
  kTornWrite,  // half of the bytes, and then as kCrash (as kCrash for other calls)
  kIoError,    // EIO, once
  kNoSpace,    // ENOSPC, once
  kFull,       // ENOSPC for all that needs space from there on
  kNearlyFull,  // and for allocations only
  kShortWrite,  // half of the bytes, which is no error
  kLostSync,   // fsync returns 0 and has done nothing
  // Of calls that only look, which count on their own:
  kReadError,  // EIO, once
  kShortRead,  // half of the bytes, which is no error
};

enum class Cut {
  kKill,      // the process ends, the system lives: nothing is lost
  kUnsynced,  // names and bytes that were not synced are gone
  kNames,     // names are as they are, bytes that were not synced are gone
  kTorn,      // each name and each sector of bytes that was not synced: by chance as before or as after
};

class FaultDisk {
 public:
  // What is below `root` now is durable.
  explicit FaultDisk(std::string root);
  ~FaultDisk();
  FaultDisk(const FaultDisk&) = delete;

  void Arm(Fault fault, int64_t call) { fault_ = fault, at_ = call; }
  int64_t calls() const { return calls_; }
  int64_t looks() const { return looks_; }
  // "fsync tmp/1-2-3" of a call.
  const std::string& Name(int64_t call) const { return names_.at(static_cast<size_t>(call - 1)); }
  const std::string& LookName(int64_t look) const { return look_names_.at(static_cast<size_t>(look - 1)); }
  // What is left below `root`, written to `target`, which must be empty. The reserve and shared memory are left out.
  void Leave(Cut cut, uint64_t seed, const std::string& target);

  // ---- called by the interposed functions; paths are absolute ----
  enum class Verdict { kGo, kDone, kHalf };
  struct Decision {
    Verdict verdict = Verdict::kGo;  // kDone: return `code` with errno set, do nothing
    int code = 0;
  };
  bool Watches(const std::string& path) const;
  Decision Before(const char* call, const std::string& path);
  Decision BeforeLook(const char* call, const std::string& path);
  void Renamed(const std::string& from, const std::string& to);
  void Created(const std::string& path);
  void Removing(const std::string& path);
  void Synced(int fd, const std::string& path);
  static FaultDisk* active();

 private:
  struct File {
    std::string synced;
  };
  using Names = std::map<std::string, int64_t>;  // file number; −1: a directory
  void Adopt(const std::string& directory);
  Names NamesNow(const std::string& directory);
  int64_t NumberOf(const std::string& path);
  void LeaveDirectory(Cut cut, const std::string& from, const std::string& to, void* random);

  std::string root_;
  Fault fault_ = Fault::kNone;
  int64_t at_ = 0, calls_ = 0, looks_ = 0;
  bool dead_ = false;
  std::vector<std::string> names_, look_names_;
  std::vector<File> files_;
  std::map<ino_t, int64_t> numbers_;
  std::map<std::string, Names> durable_;  // by directory
  // Renames of which neither directory has been synced since: from, to.
  std::vector<std::pair<std::string, std::string>> renames_;
  std::map<std::string, std::map<std::string, bool>> undone_;  // directory → name → whether its rename did not happen
};

}  // namespace pare::storage
