#include "storage/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "common/files.h"
#include "common/log.h"
#include "storage/index_log.h"
#include "storage/index_repair.h"

namespace pare::storage {
namespace {

Result<CoordinatorInfo> ParseInfo(const std::string& text) {
  ASSIGN_OR_RETURN(Json json, ParseJson(text, "lock file"));
  CoordinatorInfo info;
  ASSIGN_OR_RETURN(info.pid, IntField(json, "pid"));
  ASSIGN_OR_RETURN(info.endpoint, StringField(json, "endpoint"));
  ASSIGN_OR_RETURN(info.blob_endpoint, StringField(json, "blob_endpoint"));
  ASSIGN_OR_RETURN(info.version, StringField(json, "version"));
  return info;
}

struct flock LockOf(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return lock;
}

Error Held(const StorePaths& paths) {
  auto text = ReadFile(paths.lock(), 65536);
  std::string holder = "another process";
  if (text.ok()) {
    if (auto info = ParseInfo(*text); info.ok()) holder = "the coordinator with pid " + std::to_string(info->pid) + " at " + info->endpoint;
  }
  return Error{ErrorCode::kConflict, "store " + paths.root + " is in use by " + holder + "; connect to it with --coordinator, or use another --store"};
}

Error OnNetwork(const std::string& root, const std::string& kind) {
  return Error{ErrorCode::kInvalid, "store " + root + " is on a network file system (" + kind +
                                        "); put it on a local disk of the coordinator's host: workers elsewhere fetch and store through the coordinator"};
}

// Of the file system that `path` is on, as /proc/self/mountinfo names it; "" if it cannot be told.
std::string MountTypeOf(const std::string& path) {
  struct stat info{};
  auto mounts = ReadFile("/proc/self/mountinfo", size_t{16} << 20);
  if (!mounts.ok() || ::stat(path.c_str(), &info) != 0) return "";
  std::string device = std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
  std::istringstream lines(*mounts);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string id, parent, number, word, type;
    words >> id >> parent >> number;
    if (number != device) continue;
    while (words >> word && word != "-") {
    }
    if (words >> type) return type;
  }
  return "";
}

// SQLite's log shares memory between processes, and fsync and locks must mean what they say: true of local disks only.
Status RefuseNetworkFileSystem(const std::string& root) {
  struct statfs info{};
  if (::statfs(root.c_str(), &info) != 0) return SystemError("cannot examine " + root, errno);
  struct Kind {
    uint32_t magic;
    const char* name;
  };
  static constexpr Kind kNetwork[] = {{0x6969, "NFS"},         {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB"},     {0x517B, "SMB"},  {0x00C36400, "Ceph"},
                                      {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"}, {0x01021997, "9P"}, {0x5346414F, "AFS"}, {0x7461636F, "OCFS2"},
                                      {0x6B414653, "AFS"}, {0x19830326, "BeeGFS"}, {0x01161970, "GFS2"}, {0x18031977, "WekaFS"}, {0xAAD7AAEA, "PanFS"},
                                      {0xBEEFDEAD, "SNFS"}, {0x786F4256, "VirtualBox shared folder"}, {0xBACBACBC, "VMware shared folder"}, {0x7C7C6673, "Parallels shared folder"}};
  for (const Kind& kind : kNetwork) {
    if (static_cast<uint32_t>(info.f_type) != kind.magic) continue;
    return OnNetwork(root, kind.name);
  }
  constexpr uint32_t kFuse = 0x65735546;
  if (static_cast<uint32_t>(info.f_type) != kFuse) return Ok();
  std::string type = MountTypeOf(root);
  static constexpr std::string_view kLocal[] = {"fuseblk", "fuse.ntfs-3g", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.gocryptfs", "fuse.encfs"};
  if (std::find(std::begin(kLocal), std::end(kLocal), type) != std::end(kLocal)) return Ok();
  return OnNetwork(root, type.empty() ? "FUSE" : type);
}

// A new index beside blobs of an old one would look like a store in which nothing was ever done, and a log that is not read to its end
// like one in which less was done.
Status RefuseLostIndex(const StorePaths& paths) {
  std::error_code code;
  std::string repair = "`pare fsck --repair --store " + paths.root + "`";
  if (std::string problem = ProblemOfLog(paths.index()); !problem.empty()) {
    return Error{ErrorCode::kCorrupt, "index " + paths.index() + ": " + problem + ": " + repair + " saves what can be read"};
  }
  bool empty = std::filesystem::is_empty(paths.blobs(), code);
  if (code) return SystemError("cannot list " + paths.blobs(), code.value());
  if (empty) return Ok();
  bool gone = !std::filesystem::exists(paths.index(), code);
  if (!gone) {
    auto reading = Index::OpenForReading(paths.index());
    if (reading.ok() || reading.error().code != ErrorCode::kNotFound) return Ok();
  }
  return Error{ErrorCode::kCorrupt, "the index of store " + paths.root + " is " + (gone ? "gone" : "empty") + ", but its blobs are there: " + repair + " makes an index from them"};
}

// Files that no living process is writing (storage/blob_directory.cc: they are locked).
void RemoveLeftovers(const std::string& directory) {
  std::error_code code, ignored;
  for (std::filesystem::directory_iterator entry(directory, code), end; !code && entry != end; entry.increment(code)) {
    UniqueFd fd(::open(entry->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd.valid() || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) continue;
    std::filesystem::remove_all(entry->path(), ignored);  // scratch of examinations and repairs is a directory
  }
  if (code) LogWarning("cannot list " + directory + ": " + code.message());
}

}  // namespace

std::string DefaultStore() {
  if (const char* store = std::getenv("PARE_STORE"); store != nullptr && *store != '\0') return store;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "." : home) + "/.local/share/pare";
}

Status MakeDurableDirectory(const std::string& path) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) return Ok();
  std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty() && parent != path) TRY(MakeDurableDirectory(parent));
  if (!std::filesystem::create_directory(path, code) && code) return SystemError("cannot create directory " + path, code.value());
  return SyncDirectory(parent.empty() ? "." : parent);
}

std::string StorePaths::blob(const Digest& digest) const {
  std::string hex = digest.hex();
  return blobs() + "/" + hex.substr(0, 2) + "/" + hex;
}

Error CannotUse(const std::string& root, Error error) {
  std::error_code code;
  std::filesystem::path existing = std::filesystem::absolute(root, code);
  while (!std::filesystem::exists(existing, code) && existing.has_parent_path() && existing != existing.parent_path()) existing = existing.parent_path();
  struct statvfs info{};
  if (::statvfs(existing.c_str(), &info) == 0 && (info.f_flag & ST_RDONLY) != 0) {
    error.message += " (the file system is read-only; a store must be writable: use another --store)";
    return error.With("cannot use store " + root);
  }
  for (const std::string& path : {existing.string(), StorePaths(root).lock(), StorePaths(root).index(), root + "/logs"}) {
    if (error.code != ErrorCode::kIo || ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0 || errno != EACCES) continue;
    error.message += " (user " + std::to_string(::geteuid()) + " may not write there: change the owner or the mode of " + path + ", or use another --store)";
    break;
  }
  return error.With("cannot use store " + root);
}

Result<StoreLock> LockStore(const StorePaths& paths) {
  StoreLock lock;
  // The directory first: a process that is killed gives up its descriptors in their order, and is known by its file until the end.
  lock.directory = UniqueFd(::open(paths.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.directory.valid()) return SystemError("cannot open " + paths.root, errno);
  lock.file = UniqueFd(::open(paths.lock().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.file.valid()) return SystemError("cannot open " + paths.lock(), errno);
  struct flock whole = LockOf(F_WRLCK);
  if (::fcntl(lock.file.get(), F_OFD_SETLK, &whole) != 0) {
    if (errno == EAGAIN || errno == EACCES) return Held(paths);
    return SystemError("cannot lock " + paths.lock(), errno);
  }
  if (::flock(lock.directory.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return SystemError("cannot lock " + paths.root, errno);
    return Error{ErrorCode::kConflict, "store " + paths.root + " is in use by a coordinator or command whose lock file somebody has removed; end that process, its work goes on when it starts again"};
  }
  // What an earlier coordinator announced is no longer true.
  if (::ftruncate(lock.file.get(), 0) != 0) return SystemError("cannot write " + paths.lock(), errno);
  return lock;
}

Result<std::unique_ptr<Store>> Store::Open(const std::string& root) {
  std::unique_ptr<Store> store(new Store(StorePaths(std::filesystem::path(root).lexically_normal().string())));
  const StorePaths& paths = store->paths_;
  for (const std::string& directory : {paths.root, paths.blobs(), paths.tmp()}) {
    Status made = MakeDurableDirectory(directory);
    if (!made.ok()) return CannotUse(root, made.error());
  }
  TRY(RefuseNetworkFileSystem(paths.root));
  auto locked = LockStore(paths);
  if (!locked.ok()) return locked.error().code == ErrorCode::kConflict ? locked.error() : CannotUse(root, locked.error());
  store->lock_ = *std::move(locked);
  TRY(FinishRepair(paths));
  TRY(RefuseLostIndex(paths));
  auto index = Index::Open(paths.index());  // makes the names in this directory durable, its own and the lock's
  if (!index.ok() && index.error().code == ErrorCode::kCorrupt) {
    return Error{ErrorCode::kCorrupt, index.error().message + ": `pare fsck --repair --store " + paths.root + "` saves what can be read"};
  }
  if (!index.ok()) return index.error();
  store->index_ = *std::move(index);
  store->index_ = NewReservedIndex(std::move(store->index_), store->reserve_);
  RemoveLeftovers(paths.tmp());
  store->blobs_ = OpenBlobDirectory(paths);
  if (Status kept = store->KeepReserve(); !kept.ok()) LogWarning(kept.error().message);
  return store;
}

Status Store::Announce(const CoordinatorInfo& info) {
  std::string text = Canonical({{"pid", info.pid}, {"endpoint", info.endpoint}, {"blob_endpoint", info.blob_endpoint}, {"version", info.version}});
  // Written in place: replacing the file would replace the lock.
  int fd = lock_.file.get();
  if (::ftruncate(fd, 0) != 0 || ::lseek(fd, 0, SEEK_SET) != 0) return SystemError("cannot write " + paths_.lock(), errno);
  return WriteAll(fd, std::as_bytes(std::span(text)), paths_.lock());
}

Result<std::optional<CoordinatorInfo>> FindCoordinator(const std::string& root) {
  StorePaths paths(root);
  UniqueFd fd(::open(paths.lock().c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<CoordinatorInfo>();
    return CannotUse(root, SystemError("cannot open " + paths.lock(), errno));
  }
  // Asks who holds the lock without taking it: a coordinator that starts at this moment is not disturbed.
  struct flock lock = LockOf(F_RDLCK);
  if (::fcntl(fd.get(), F_OFD_GETLK, &lock) != 0) return SystemError("cannot examine " + paths.lock(), errno);
  if (lock.l_type == F_UNLCK) return std::optional<CoordinatorInfo>();
  ASSIGN_OR_RETURN(std::string text, ReadFile(paths.lock(), 65536));
  auto info = ParseInfo(text);
  if (!info.ok()) return std::optional<CoordinatorInfo>();  // it lives, but has not announced itself yet
  return std::optional<CoordinatorInfo>(*std::move(info));
}

}  // namespace pare::storage
