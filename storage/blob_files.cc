#include "storage/blob_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

namespace pare::storage {
namespace {

int64_t PutMs(const struct stat& info) { return int64_t{info.st_mtim.tv_sec} * 1000 + info.st_mtim.tv_nsec / 1'000'000; }

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using Directory = std::unique_ptr<DIR, DirectoryCloser>;

// Calls `each` with every name.
template <typename F>
Status ForEachName(const std::string& path, F&& each) {
  Directory directory(::opendir(path.c_str()));
  if (directory == nullptr) return errno == ENOENT ? Ok() : Status(SystemError("cannot list " + path, errno));
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr) return errno == 0 ? Ok() : Status(SystemError("cannot list " + path, errno));
    std::string name = entry->d_name;
    if (name != "." && name != "..") each(name, ::dirfd(directory.get()));
  }
}

Result<UniqueFd> Locked(const StorePaths& paths, int operation) {
  std::string path = paths.root + "/maintenance.lock";
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid() && errno == EROFS) {
    fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) return UniqueFd();  // nobody can take blobs away there
  }
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  int code;
  do {
    code = ::flock(fd.get(), operation);
  } while (code != 0 && errno == EINTR);
  if (code == 0) return fd;
  if (errno != EWOULDBLOCK) return SystemError("cannot lock " + path, errno);
  return Error{ErrorCode::kConflict, "blobs of store " + paths.root + " are in use by a backup or another collection: try again when that is over"};
}

// Calls `each` with the file's bytes, piece by piece, until it returns false.
template <typename F>
Status ForEachPiece(const std::string& path, F&& each) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  constexpr size_t kPiece = size_t{1} << 20;
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(kPiece);
  for (;;) {
    ssize_t n = ::read(fd.get(), buffer.get(), kPiece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("cannot read " + path, errno);
    if (n == 0 || !each(std::span<const std::byte>(buffer.get(), static_cast<size_t>(n)))) return Ok();
  }
}

}  // namespace

Result<Digest> DigestOfFile(const std::string& path) {
  Sha256 hash;
  TRY(ForEachPiece(path, [&](std::span<const std::byte> piece) {
    hash.Update(piece);
    return true;
  }));
  return Digest(hash.Finish());
}

bool HasBytes(const std::string& path, std::span<const std::byte> bytes) {
  bool same = true;
  Status read = ForEachPiece(path, [&](std::span<const std::byte> piece) {
    same = piece.size() <= bytes.size() && std::memcmp(piece.data(), bytes.data(), piece.size()) == 0;
    if (same) bytes = bytes.subspan(piece.size());
    return same;
  });
  return read.ok() && same && bytes.empty();
}

Result<std::string> FirstBytes(const std::string& path, size_t count) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return SystemError("cannot open " + path, errno);
  std::string bytes(count, '\0');
  size_t have = 0;
  while (have < count) {
    ssize_t n = ::read(fd.get(), bytes.data() + have, count - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError("cannot read " + path, errno);
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  bytes.resize(have);
  return bytes;
}

bool BeginsWith(const std::string& path, std::string_view bytes) {
  auto begin = FirstBytes(path, bytes.size());
  return begin.ok() && *begin == bytes;
}

Result<BlobListing> ListBlobs(const StorePaths& paths) {
  BlobListing listing;
  std::vector<std::string> prefixes;
  TRY(ForEachName(paths.blobs(), [&](const std::string& name, int) { prefixes.push_back(name); }));
  std::sort(prefixes.begin(), prefixes.end());
  for (const std::string& prefix : prefixes) {
    std::string folder = paths.blobs() + "/" + prefix;
    struct stat info{};
    if (::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
      listing.strangers.push_back(folder);
      continue;
    }
    TRY(ForEachName(folder, [&](const std::string& name, int fd) {
      auto digest = Digest::FromHex(name);
      bool good = digest.ok() && name.substr(0, 2) == prefix && ::fstatat(fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
      if (good) listing.blobs.push_back({*digest, info.st_size, PutMs(info)});
      else listing.strangers.push_back(folder + "/" + name);
    }));
  }
  std::sort(listing.blobs.begin(), listing.blobs.end(), [](const BlobFile& a, const BlobFile& b) { return a.digest < b.digest; });
  std::sort(listing.strangers.begin(), listing.strangers.end());
  return listing;
}

Result<MaintenanceLock> MaintenanceLock::Share(const StorePaths& paths) {
  ASSIGN_OR_RETURN(UniqueFd fd, Locked(paths, LOCK_SH));
  return MaintenanceLock(std::move(fd));
}

Result<MaintenanceLock> MaintenanceLock::TakeAlone(const StorePaths& paths) {
  ASSIGN_OR_RETURN(UniqueFd fd, Locked(paths, LOCK_EX | LOCK_NB));
  return MaintenanceLock(std::move(fd));
}

Result<bool> RemoveBlob(const StorePaths& paths, const BlobFile& file) {
  std::string path = paths.blob(file.digest);
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return false;
    return SystemError("cannot examine " + path, errno);
  }
  if (PutMs(info) != file.put_ms || info.st_size != file.bytes) return false;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return SystemError("cannot remove " + path, errno);
  return true;
}

Result<std::string> Quarantine(const StorePaths& paths, const std::string& file) {
  std::string folder = paths.root + "/quarantine", name = std::filesystem::path(file).filename().string();
  TRY(MakeDurableDirectory(folder));  // before it holds the only name of something
  std::string target = folder + "/" + name;
  std::error_code code;
  for (int i = 1; std::filesystem::exists(target, code); ++i) target = folder + "/" + name + "." + std::to_string(i);
  if (::rename(file.c_str(), target.c_str()) != 0) return SystemError("cannot move " + file + " to " + target, errno);
  TRY(SyncDirectory(folder));
  TRY(SyncDirectory(paths.root));
  TRY(SyncDirectory(std::filesystem::path(file).parent_path().string()));
  return target;
}

}  // namespace pare::storage
