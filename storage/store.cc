#include "storage/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "common/files.h"

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

Error Held(const std::string& root) {
  auto text = ReadFile(root + "/lock", 65536);
  std::string holder = "another process";
  if (text.ok()) {
    if (auto info = ParseInfo(*text); info.ok()) holder = "the coordinator with pid " + std::to_string(info->pid) + " at " + info->endpoint;
  }
  return Error{ErrorCode::kConflict, "store " + root + " is in use by " + holder + "; connect to it with --coordinator, or use another --store"};
}

Status EmptyDirectory(const std::string& path) {
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(path, code)) {
    std::filesystem::remove_all(entry.path(), code);
  }
  if (code) return SystemError("cannot empty " + path, code.value());
  return Ok();
}

}  // namespace

std::string StorePaths::blob(const Digest& digest) const {
  std::string hex = digest.hex();
  return blobs() + "/" + hex.substr(0, 2) + "/" + hex;
}

Result<std::unique_ptr<Store>> Store::Open(const std::string& root) {
  std::unique_ptr<Store> store(new Store(StorePaths(root)));
  const StorePaths& paths = store->paths_;
  for (const std::string& directory : {root, paths.blobs(), paths.tmp()}) {
    Status made = MakeDirectories(directory);
    if (!made.ok()) return made.error().With("cannot use store " + root);
  }
  store->lock_fd_ = ::open(paths.lock().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (store->lock_fd_ < 0) return SystemError("cannot open " + paths.lock(), errno);
  if (::flock(store->lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Held(root);
    return SystemError("cannot lock " + paths.lock(), errno);
  }
  // What an earlier coordinator announced is no longer true.
  if (::ftruncate(store->lock_fd_, 0) != 0) return SystemError("cannot write " + paths.lock(), errno);
  auto index = Index::Open(paths.index());
  if (!index.ok()) return index.error();
  store->index_ = *std::move(index);
  TRY(EmptyDirectory(paths.tmp()));
  store->blobs_ = OpenBlobDirectory(paths);
  return store;
}

Store::~Store() {
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

Status Store::Announce(const CoordinatorInfo& info) {
  std::string text = Canonical({{"pid", info.pid}, {"endpoint", info.endpoint}, {"blob_endpoint", info.blob_endpoint}, {"version", info.version}});
  // Written in place: replacing the file would replace the lock.
  if (::ftruncate(lock_fd_, 0) != 0 || ::lseek(lock_fd_, 0, SEEK_SET) != 0) return SystemError("cannot write " + paths_.lock(), errno);
  return WriteAll(lock_fd_, std::as_bytes(std::span(text)), paths_.lock());
}

Result<std::optional<CoordinatorInfo>> FindCoordinator(const std::string& root) {
  StorePaths paths(root);
  UniqueFd fd(::open(paths.lock().c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<CoordinatorInfo>();
    return SystemError("cannot open " + paths.lock(), errno);
  }
  // A shared lock is had exactly when no coordinator lives.
  if (::flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return std::optional<CoordinatorInfo>();
  ASSIGN_OR_RETURN(std::string text, ReadFile(paths.lock(), 65536));
  auto info = ParseInfo(text);
  if (!info.ok()) return std::optional<CoordinatorInfo>();  // it lives, but has not announced itself yet
  return std::optional<CoordinatorInfo>(*std::move(info));
}

}  // namespace pare::storage
