// DirectoryBlobStore: one file per blob. Several processes may use one directory at once.
//
// Order of a write: temporary file in tmp/, fsync, rename to blobs/ab/ab…, fsync of blobs/ab, and of blobs/ when ab/ is new to
// this process. A crash at any point leaves either nothing or the whole blob, and perhaps a file in tmp/. A temporary file is
// locked (flock) as long as it is written, so that a coordinator that empties tmp/ tells leftovers from work in progress.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <bitset>
#include <cerrno>
#include <map>
#include <set>

#include "common/files.h"
#include "common/synchronized.h"
#include "storage/blob_files.h"
#include "storage/blob_store.h"
#include "storage/store.h"

namespace pare::storage {
namespace {

// A file as it was when its bytes were compared with its name: any change of it makes this differ.
struct FileState {
  uint64_t device = 0, inode = 0;
  int64_t size = 0, changed_ns = 0;
  bool operator==(const FileState&) const = default;
};

Result<FileState> StateOf(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return SystemError("cannot examine " + path, errno);
  return FileState{info.st_dev, info.st_ino, info.st_size, int64_t{info.st_ctim.tv_sec} * 1'000'000'000 + info.st_ctim.tv_nsec};
}

// Appends what a full disk means for the user.
Error OfStore(Error error, const std::string& root) {
  if (error.code == ErrorCode::kNoSpace) error.message += " (the file system of store " + root + " is full: free some space)";
  return error;
}

// A file in tmp/ that goes with the object unless it became a blob.
class TemporaryFile {
 public:
  TemporaryFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  TemporaryFile(TemporaryFile&& other) noexcept : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  Status Write(std::span<const std::byte> bytes) { return WriteAll(fd_.get(), bytes, path_); }

  // Synced and under its name; the directory is not synced yet.
  Status MoveTo(const std::string& path) {
    if (::fsync(fd_.get()) != 0) return SystemError("cannot sync " + path_, errno);
    TRY(MakeDirectories(path.substr(0, path.rfind('/'))));
    if (::rename(path_.c_str(), path.c_str()) != 0) return SystemError("cannot rename " + path_ + " to " + path, errno);
    path_.clear();
    return Ok();
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

class DirectoryBlobStore : public BlobStore {
 public:
  explicit DirectoryBlobStore(StorePaths paths) : paths_(std::move(paths)) {}

  Result<Digest> Put(std::span<const std::byte> bytes) override {
    Digest digest = DigestOf(bytes);
    ASSIGN_OR_RETURN(bool there, HasAlready(digest, bytes));
    if (there) return digest;
    Status status = Write(digest, bytes);
    if (!status.ok()) return OfStore(status.error(), paths_.root).With("cannot store blob " + digest.brief());
    return digest;
  }

  Result<BlobView> Get(const Digest& digest) override {
    std::string path = paths_.blob(digest);
    auto state = StateOf(path);
    if (!state.ok() && state.error().code == ErrorCode::kNotFound) {
      return Error{ErrorCode::kNotFound, "blob " + digest.hex() + " is not in the store " + paths_.root};
    }
    if (!state.ok()) return state.error();
    bool verified = known_.With([&](Known& known) {
      auto it = known.verified.find(digest);
      return it != known.verified.end() && it->second == *state;
    });
    if (!verified) {
      ASSIGN_OR_RETURN(Digest found, DigestOfFile(path));  // also what shows whether all of it can be read, before it is mapped
      if (found != digest) {
        return Error{ErrorCode::kCorrupt, "blob " + digest.hex() + " is damaged: " + path + " has other content than its name says"};
      }
      known_.With([&](Known& known) { known.verified[digest] = *state; });
    }
    ASSIGN_OR_RETURN(MappedFile file, MapFile(path));
    return BlobView{file.bytes, std::move(file.keep_alive)};
  }

  Result<bool> Contains(const Digest& digest) override { return Look(digest, [](const FileState&) { return true; }); }
  Result<bool> Holds(const Digest& digest, int64_t bytes) override {
    return Look(digest, [bytes](const FileState& state) { return state.size == bytes; });
  }

  Result<std::unique_ptr<BlobWriter>> NewWriter() override;

 private:
  friend class DirectoryBlobWriter;
  struct Known {
    std::map<Digest, FileState> verified;
    std::set<Digest> durable;    // name and bytes: this process has synced both
    std::bitset<256> prefixes;   // blobs/ab: this process has synced its name
  };

  // False where there is none.
  template <typename F>
  Result<bool> Look(const Digest& digest, const F& matches) {
    auto state = StateOf(paths_.blob(digest));
    if (state.ok()) return matches(*state);
    if (state.error().code == ErrorCode::kNotFound) return false;
    return state.error();
  }

  // Trusting the name alone would keep a damaged blob damaged for ever: a step that runs again must be able to heal it.
  Result<bool> HasAlready(const Digest& digest, std::span<const std::byte> bytes) {
    std::string path = paths_.blob(digest);
    auto state = StateOf(path);
    if (!state.ok() || state->size != static_cast<int64_t>(bytes.size())) return false;
    bool known = known_.With([&](Known& k) { return k.durable.contains(digest) && k.verified[digest] == *state; });
    if (!known && !HasBytes(path, bytes)) return false;
    if (!MarkAsPut(path, *state)) return false;
    known_.With([&](Known& k) { k.verified[digest] = *state; });
    if (known) return true;
    // Another process may have renamed it a moment ago and not have synced the directory yet.
    TRY(SyncNames(digest));
    return true;
  }

  // Whoever collects garbage sees that the blob is wanted again (storage/blob_files.h). False: it has just been taken away, or
  // belongs to somebody else; the caller writes its own.
  bool MarkAsPut(const std::string& path, FileState& state) {
    auto lock = MaintenanceLock::Share(paths_);
    if (!lock.ok()) return false;
    auto now = StateOf(path);
    if (!now.ok() || *now != state || ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0) != 0) return false;
    now = StateOf(path);
    if (!now.ok()) return false;
    state = *now;
    return true;
  }

  // A new file, locked.
  Result<TemporaryFile> NewTemporary() {
    for (;;) {
      // The address tells apart two stores of one process on the same directory.
      std::string path = paths_.tmp() + "/" + std::to_string(::getpid()) + "-" + std::to_string(reinterpret_cast<uintptr_t>(this)) + "-" + std::to_string(counter_++);
      UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      if (!fd.valid()) return SystemError("cannot create " + path, errno);
      struct stat info{};
      if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(fd.get(), &info) != 0) return SystemError("cannot lock " + path, errno);
      // Nobody removes it from here on; removed between the two calls, it is made again.
      if (info.st_nlink > 0) return TemporaryFile(std::move(path), std::move(fd));
    }
  }

  Status Write(const Digest& digest, std::span<const std::byte> bytes) {
    ASSIGN_OR_RETURN(TemporaryFile file, NewTemporary());
    TRY(file.Write(bytes));
    return Publish(std::move(file), digest);
  }

  Status Publish(TemporaryFile file, const Digest& digest) {
    {
      // A collection looks at a file and then unlinks its name: a new file must not get the name in between.
      ASSIGN_OR_RETURN(MaintenanceLock shared, MaintenanceLock::Share(paths_));
      TRY(file.MoveTo(paths_.blob(digest)));
    }
    return SyncNames(digest);
  }

  Status SyncNames(const Digest& digest) {
    std::string path = paths_.blob(digest);
    uint8_t prefix = digest.bytes()[0];
    TRY(SyncDirectory(path.substr(0, path.rfind('/'))));
    if (!known_.With([&](Known& k) { return k.prefixes.test(prefix); })) TRY(SyncDirectory(paths_.blobs()));
    known_.With([&](Known& k) {
      k.prefixes.set(prefix);
      k.durable.insert(digest);
    });
    return Ok();
  }

  StorePaths paths_;
  std::atomic<int64_t> counter_{0};
  Synchronized<Known> known_;
};

class DirectoryBlobWriter : public BlobWriter {
 public:
  DirectoryBlobWriter(DirectoryBlobStore& store, TemporaryFile file) : store_(store), file_(std::move(file)) {}

  Status Append(std::span<const std::byte> bytes) override {
    Status status = file_.Write(bytes);
    if (!status.ok()) return OfStore(status.error(), store_.paths_.root);
    hash_.Update(bytes);
    return Ok();
  }

  Result<Digest> Finish(const Digest& expected) override {
    Digest digest(hash_.Finish());
    if (!expected.is_none() && digest != expected) {
      return Error{ErrorCode::kCorrupt, "blob " + expected.hex() + ": what was written has SHA-256 " + digest.hex()};
    }
    Status status = store_.Publish(std::move(file_), digest);
    if (!status.ok()) return OfStore(status.error(), store_.paths_.root).With("cannot store blob " + digest.brief());
    return digest;
  }

 private:
  DirectoryBlobStore& store_;
  TemporaryFile file_;
  Sha256 hash_;
};

Result<std::unique_ptr<BlobWriter>> DirectoryBlobStore::NewWriter() {
  auto file = NewTemporary();
  if (!file.ok()) return OfStore(file.error(), paths_.root);
  return std::unique_ptr<BlobWriter>(std::make_unique<DirectoryBlobWriter>(*this, *std::move(file)));
}

}  // namespace

std::unique_ptr<BlobStore> OpenBlobDirectory(const StorePaths& paths) { return std::make_unique<DirectoryBlobStore>(paths); }

}  // namespace pare::storage
