#include "tests/storage/fault_disk.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdlib>
#include <filesystem>

#include "tests/storage/files.h"

namespace pare::storage {
namespace {

namespace fs = std::filesystem;

FaultDisk* current = nullptr;
thread_local bool inside = false;  // our own calls are not watched

class Inside {
 public:
  Inside() : before_(inside) { inside = true; }
  ~Inside() { inside = before_; }

 private:
  bool before_;
};

std::string PathOf(int fd) {
  char buffer[PATH_MAX];
  ssize_t size = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), buffer, sizeof buffer);
  return size <= 0 ? "" : std::string(buffer, static_cast<size_t>(size));
}

std::string Absolute(const char* path) { return fs::absolute(path).lexically_normal().string(); }

bool LeftOut(const std::string& name) { return name == "reserve" || name.ends_with("-shm"); }

}  // namespace

FaultDisk* FaultDisk::active() { return inside ? nullptr : current; }

FaultDisk::FaultDisk(std::string root) : root_(fs::canonical(root).string()) {
  Inside guard;
  Adopt(root_);
  current = this;
}

FaultDisk::~FaultDisk() { current = nullptr; }

void FaultDisk::Adopt(const std::string& directory) {
  durable_[directory] = NamesNow(directory);
  for (const auto& [name, number] : durable_[directory]) {
    if (number < 0) Adopt(directory + "/" + name);
    else files_[static_cast<size_t>(number)].synced = ReadBytes(directory + "/" + name);
  }
}

bool FaultDisk::Watches(const std::string& path) const { return path == root_ || path.starts_with(root_ + "/"); }

int64_t FaultDisk::NumberOf(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return -1;
  auto [it, fresh] = numbers_.try_emplace(info.st_ino, static_cast<int64_t>(files_.size()));
  if (fresh) files_.emplace_back();
  return it->second;
}

FaultDisk::Names FaultDisk::NamesNow(const std::string& directory) {
  Names names;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(directory, code)) {
    names[entry.path().filename().string()] = entry.is_directory() ? -1 : NumberOf(entry.path().string());
  }
  return names;
}

FaultDisk::Decision FaultDisk::Before(const char* call, const std::string& path) {
  ++calls_;
  names_.push_back(std::string(call) + " " + (path.size() > root_.size() ? path.substr(root_.size() + 1) : "."));
  bool sync = std::string_view(call) == "fsync", write = std::string_view(call) == "write";
  if (dead_) return errno = EIO, Decision{Verdict::kDone, -1};
  bool allocates = std::string_view(call) == "allocate", grows = allocates || write || std::string_view(call) == "create" || std::string_view(call) == "mkdir";
  bool full = (fault_ == Fault::kFull && grows) || (fault_ == Fault::kNearlyFull && allocates);
  if (full && calls_ >= at_) return errno = ENOSPC, Decision{Verdict::kDone, -1};
  if (calls_ != at_) return {};
  switch (fault_) {
    case Fault::kNone: return {};
    case Fault::kCrash: dead_ = true; return errno = EIO, Decision{Verdict::kDone, -1};
    case Fault::kTornWrite: dead_ = true; return write ? Decision{Verdict::kHalf, 0} : (errno = EIO, Decision{Verdict::kDone, -1});
    case Fault::kIoError: return errno = EIO, Decision{Verdict::kDone, -1};
    case Fault::kNoSpace: return errno = ENOSPC, Decision{Verdict::kDone, -1};
    case Fault::kShortWrite: return write ? Decision{Verdict::kHalf, 0} : Decision{};
    case Fault::kLostSync: return sync ? Decision{Verdict::kDone, 0} : Decision{};
    case Fault::kFull:
    case Fault::kNearlyFull:
    case Fault::kReadError:
    case Fault::kShortRead: return {};
  }
  return {};
}

FaultDisk::Decision FaultDisk::BeforeLook(const char* call, const std::string& path) {
  ++looks_;
  look_names_.push_back(std::string(call) + " " + (path.size() > root_.size() ? path.substr(root_.size() + 1) : "."));
  if (looks_ != at_) return {};
  if (fault_ == Fault::kReadError) return errno = EIO, Decision{Verdict::kDone, -1};
  if (fault_ == Fault::kShortRead && std::string_view(call) == "read") return {Verdict::kHalf, 0};
  return {};
}

void FaultDisk::Renamed(const std::string& from, const std::string& to) {
  renames_.emplace_back(from, to);
}

// A new file, perhaps under a number that the system gave an older one.
void FaultDisk::Created(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0) numbers_.erase(info.st_ino);
  (void)NumberOf(path);
}

void FaultDisk::Removing(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0 && info.st_nlink == 1) numbers_.erase(info.st_ino);
}

void FaultDisk::Synced(int fd, const std::string& path) {
  Inside guard;
  struct stat info{};
  if (::fstat(fd, &info) != 0) return;
  if (S_ISDIR(info.st_mode)) {
    durable_[path] = NamesNow(path);
    auto in = [&path](const std::string& name) { return fs::path(name).parent_path() == path; };
    std::erase_if(renames_, [&](const auto& rename) { return in(rename.first) || in(rename.second); });
  } else if (int64_t number = NumberOf(path); number >= 0 && !LeftOut(fs::path(path).filename().string())) {
    files_[static_cast<size_t>(number)].synced = ReadBytes(path);
  }
}

void FaultDisk::Leave(Cut cut, uint64_t seed, const std::string& target) {
  Inside guard;
  RandomStream random(seed, RandomPurpose::kTest);
  undone_.clear();
  for (const auto& [source, renamed] : renames_) {
    bool undone = random.Below(2) == 0;
    for (const fs::path name : {source, renamed}) undone_[name.parent_path().string()][name.filename().string()] = undone;
  }
  LeaveDirectory(cut, root_, target, &random);
}

void FaultDisk::LeaveDirectory(Cut cut, const std::string& from, const std::string& to, void* stream) {
  auto& random = *static_cast<RandomStream*>(stream);
  fs::create_directories(to);
  Names really = NamesNow(from), now = really, before = durable_[from], names;
  for (const auto& [name, undone] : cut == Cut::kTorn ? undone_[from] : std::map<std::string, bool>()) {
    Names& other = undone ? now : before;
    const Names& one = undone ? before : now;
    other.erase(name);
    if (auto entry = one.find(name); entry != one.end()) other.insert(*entry);
  }
  if (cut == Cut::kUnsynced) names = before;
  else if (cut != Cut::kTorn) names = now;
  else {
    for (const auto& [name, number] : before) {
      if ((now.count(name) != 0 && now[name] == number) || random.Below(2) == 0) names[name] = number;
    }
    for (const auto& [name, number] : now) {
      bool same = before.count(name) != 0 && before[name] == number;
      if (same || random.Below(2) == 0) names[name] = number;
    }
  }
  for (const auto& [name, number] : names) {
    if (LeftOut(name)) continue;
    if (number < 0) {
      LeaveDirectory(cut, from + "/" + name, to + "/" + name, stream);
      continue;
    }
    const std::string& synced = files_[static_cast<size_t>(number)].synced;
    bool living = really.count(name) != 0 && really[name] == number;
    std::string live = living ? ReadBytes(from + "/" + name) : synced, bytes = cut == Cut::kKill ? live : synced;
    if (cut == Cut::kTorn) {
      if (random.Below(2) == 0) bytes.resize(live.size());
      for (size_t at = 0; at < std::min(bytes.size(), live.size()); at += 512) {
        size_t size = std::min({size_t{512}, bytes.size() - at, live.size() - at});
        if (random.Below(2) == 0) bytes.replace(at, size, live, at, size);
      }
    }
    WriteBytes(to + "/" + name, bytes);
  }
}

// ---- between the C library's callers and the kernel ----

namespace {

// The disk if it watches this file; `path` is filled in.
FaultDisk* Watcher(int fd, std::string& path) {
  FaultDisk* disk = FaultDisk::active();
  if (disk == nullptr) return nullptr;
  Inside guard;
  path = PathOf(fd);
  return disk->Watches(path) ? disk : nullptr;
}
FaultDisk* Watcher(const char* name, std::string& path) {
  FaultDisk* disk = FaultDisk::active();
  if (disk == nullptr) return nullptr;
  Inside guard;
  path = Absolute(name);
  return disk->Watches(path) ? disk : nullptr;
}

int Open(const char* name, int flags, mode_t mode) {
  std::string path;
  FaultDisk* disk = Watcher(name, path);
  auto real = [&] { return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, name, flags, mode)); };
  if (disk == nullptr || (flags & (O_CREAT | O_TRUNC)) == 0) return real();
  bool exists = ::access(name, F_OK) == 0;
  if (exists && (flags & O_TRUNC) == 0) return real();
  if (auto decision = disk->Before(exists ? "truncate" : "create", path); decision.verdict == FaultDisk::Verdict::kDone) return decision.code;
  int fd = real();
  Inside guard;
  if (fd >= 0 && !exists) disk->Created(path);
  return fd;
}

template <typename Real>
ssize_t Write(int fd, size_t size, Real real) {
  std::string path;
  FaultDisk* disk = Watcher(fd, path);
  if (disk == nullptr) return real(size);
  auto decision = disk->Before("write", path);
  if (decision.verdict == FaultDisk::Verdict::kDone) return decision.code;
  return real(decision.verdict == FaultDisk::Verdict::kHalf && size > 1 ? size / 2 : size);
}

// A call that only looks, at an open file.
template <typename Real>
ssize_t Read(const char* call, int fd, size_t size, Real real) {
  std::string path;
  FaultDisk* disk = Watcher(fd, path);
  if (disk == nullptr || LeftOut(path.substr(path.rfind('/') + 1))) return real(size);
  auto decision = disk->BeforeLook(call, path);
  if (decision.verdict == FaultDisk::Verdict::kDone) return decision.code;
  return real(decision.verdict == FaultDisk::Verdict::kHalf && size > 1 ? size / 2 : size);
}

void* Map(void* wanted, size_t size, int protection, int flags, int fd, off64_t at) {
  void* mapped = MAP_FAILED;
  auto real = [&](size_t) -> ssize_t {
    mapped = reinterpret_cast<void*>(::syscall(SYS_mmap, wanted, size, protection, flags, fd, at));
    return mapped == MAP_FAILED ? -1 : 0;
  };
  if (fd < 0) (void)real(0);
  else (void)Read("mmap", fd, 0, real);
  return mapped;
}

template <typename Entry>
Entry* ReadDirectory(DIR* directory, const char* name) {
  auto* next = reinterpret_cast<Entry* (*)(DIR*)>(::dlsym(RTLD_NEXT, name));
  Entry* entry = nullptr;
  int before = errno;  // callers tell the end from an error by it
  (void)Read("readdir", ::dirfd(directory), 0, [&](size_t) -> ssize_t {
    errno = before;
    entry = next(directory);
    return 0;
  });
  return entry;
}

std::string PathAt(int directory, const char* path) {
  if (directory == AT_FDCWD || *path == '/' || FaultDisk::active() == nullptr) return path;
  Inside guard;
  return PathOf(directory) + "/" + path;
}

void NoteRename(const char* from, const char* to) {
  std::string source, target;
  FaultDisk* disk = Watcher(from, source);
  if (disk != nullptr && Watcher(to, target) != nullptr) disk->Renamed(source, target);
}

int Sync(int fd, long call) {
  std::string path;
  FaultDisk* disk = Watcher(fd, path);
  if (disk == nullptr) return static_cast<int>(::syscall(call, fd));
  if (auto decision = disk->Before("fsync", path); decision.verdict == FaultDisk::Verdict::kDone) return decision.code;
  disk->Synced(fd, path);
  return 0;
}

// A call on a name, or on a descriptor.
template <typename File, typename Real>
int Change(const char* call, File file, Real real) {
  std::string path;
  FaultDisk* disk = Watcher(file, path);
  if (disk == nullptr) return static_cast<int>(real());
  if (auto decision = disk->Before(call, path); decision.verdict == FaultDisk::Verdict::kDone) return decision.code;
  if (std::string_view(call) == "unlink") disk->Removing(path);
  return static_cast<int>(real());
}

}  // namespace
}  // namespace pare::storage

extern "C" {

using pare::storage::Change;

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  return pare::storage::Open(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  return pare::storage::Open(path, flags | O_LARGEFILE, mode);
}
ssize_t write(int fd, const void* bytes, size_t size) {
  return pare::storage::Write(fd, size, [=](size_t n) { return ::syscall(SYS_write, fd, bytes, n); });
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t at) {
  return pare::storage::Write(fd, size, [=](size_t n) { return ::syscall(SYS_pwrite64, fd, bytes, n, at); });
}
int fsync(int fd) { return pare::storage::Sync(fd, SYS_fsync); }
int fdatasync(int fd) { return pare::storage::Sync(fd, SYS_fdatasync); }
ssize_t read(int fd, void* bytes, size_t size) {
  return pare::storage::Read("read", fd, size, [=](size_t n) { return ::syscall(SYS_read, fd, bytes, n); });
}
ssize_t pread64(int fd, void* bytes, size_t size, off64_t at) {
  return pare::storage::Read("read", fd, size, [=](size_t n) { return ::syscall(SYS_pread64, fd, bytes, n, at); });
}
void* mmap(void* wanted, size_t size, int protection, int flags, int fd, off_t at) noexcept {
  return pare::storage::Map(wanted, size, protection, flags, fd, at);
}
void* mmap64(void* wanted, size_t size, int protection, int flags, int fd, off64_t at) noexcept {
  return pare::storage::Map(wanted, size, protection, flags, fd, at);
}
int flock(int fd, int operation) noexcept {
  return static_cast<int>(pare::storage::Read("flock", fd, 0, [=](size_t) { return ::syscall(SYS_flock, fd, operation); }));
}
struct dirent* readdir(DIR* directory) { return pare::storage::ReadDirectory<struct dirent>(directory, "readdir"); }
struct dirent64* readdir64(DIR* directory) { return pare::storage::ReadDirectory<struct dirent64>(directory, "readdir64"); }
int utimensat(int directory, const char* path, const struct timespec times[2], int flags) noexcept {
  auto real = [=] { return ::syscall(SYS_utimensat, directory, path, times, flags); };
  return Change("touch", pare::storage::PathAt(directory, path).c_str(), real);
}
int rename(const char* from, const char* to) noexcept {
  return Change("rename", to, [=] {
    long code = ::syscall(SYS_rename, from, to);
    if (code == 0) pare::storage::NoteRename(from, to);
    return code;
  });
}
int unlink(const char* path) noexcept {
  return Change("unlink", path, [=] { return ::syscall(SYS_unlink, path); });
}
int unlinkat(int directory, const char* path, int flags) noexcept {
  return Change((flags & AT_REMOVEDIR) != 0 ? "rmdir" : "unlink", pare::storage::PathAt(directory, path).c_str(),
                [=] { return ::syscall(SYS_unlinkat, directory, path, flags); });
}
int rmdir(const char* path) noexcept {
  return Change("rmdir", path, [=] { return ::syscall(SYS_rmdir, path); });
}
int remove(const char* path) noexcept {
  struct stat info{};
  bool directory = ::lstat(path, &info) == 0 && S_ISDIR(info.st_mode);
  return directory ? rmdir(path) : unlink(path);
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (::access(path, F_OK) == 0) return errno = EEXIST, -1;
  return Change("mkdir", path, [=] { return ::syscall(SYS_mkdir, path, mode); });
}
int ftruncate(int fd, off_t size) noexcept {
  return Change("truncate", fd, [=] { return ::syscall(SYS_ftruncate, fd, size); });
}
int ftruncate64(int fd, off64_t size) noexcept {
  return Change("truncate", fd, [=] { return ::syscall(SYS_ftruncate, fd, size); });
}
int truncate(const char* path, off_t size) noexcept {
  return Change("truncate", path, [=] { return ::syscall(SYS_truncate, path, size); });
}
int posix_fallocate(int fd, off_t at, off_t size) {
  // The size is all that counts here, and a file system in memory would clear every page.
  int code = Change("allocate", fd, [=]() -> long {
    struct stat now;
    if (::fstat(fd, &now) != 0) return -1;
    return now.st_size >= at + size ? 0 : ::syscall(SYS_ftruncate, fd, at + size);
  });
  return code == 0 ? 0 : errno;
}

}  // extern "C"
