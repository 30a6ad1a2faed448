// DirectoryBlobStore: one file per blob. Order of a write: temporary file, fsync, rename, fsync of the directory; a reader
// therefore sees a whole blob or none.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <set>

#include "common/files.h"
#include "common/synchronized.h"
#include "storage/blob_store.h"
#include "storage/store.h"

namespace pare::storage {
namespace {

class DirectoryBlobStore : public BlobStore {
 public:
  explicit DirectoryBlobStore(StorePaths paths) : paths_(std::move(paths)) {}

  Result<Digest> Put(std::span<const std::byte> bytes) override {
    Digest digest = DigestOf(bytes);
    std::string path = paths_.blob(digest);
    struct stat info{};
    // Same name and size: it was renamed into place whole. Content is verified when it is read.
    if (::stat(path.c_str(), &info) == 0 && static_cast<size_t>(info.st_size) == bytes.size()) return digest;
    std::string directory = path.substr(0, path.rfind('/'));
    TRY(MakeDirectories(directory));
    std::string temporary = paths_.tmp() + "/" + digest.hex() + "." + std::to_string(::getpid()) + "." + std::to_string(counter_++);
    Status status = Write(temporary, path, bytes);
    if (!status.ok()) {
      ::unlink(temporary.c_str());
      return status.error();
    }
    TRY(SyncDirectory(directory));
    TRY(SyncDirectory(paths_.blobs()));
    return digest;
  }

  Result<BlobView> Get(const Digest& digest) override {
    auto file = MapFile(paths_.blob(digest));
    if (!file.ok() && file.error().code == ErrorCode::kNotFound) {
      return Error{ErrorCode::kNotFound, "blob " + digest.hex() + " is not in the store " + paths_.root};
    }
    if (!file.ok()) return file.error();
    bool verified = verified_.With([&](auto& set) { return set.count(digest) > 0; });
    if (!verified) {
      if (DigestOf(file->bytes) != digest) {
        return Error{ErrorCode::kCorrupt, "blob " + digest.hex() + " is damaged: " + paths_.blob(digest) + " has other content than its name says"};
      }
      verified_.With([&](auto& set) { set.insert(digest); });
    }
    return BlobView{file->bytes, file->keep_alive};
  }

  Result<bool> Contains(const Digest& digest) override {
    struct stat info{};
    if (::stat(paths_.blob(digest).c_str(), &info) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return SystemError("cannot examine " + paths_.blob(digest), errno);
  }

 private:
  static Status Write(const std::string& temporary, const std::string& path, std::span<const std::byte> bytes) {
    UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!fd.valid()) return SystemError("cannot create " + temporary, errno);
    TRY(WriteAll(fd.get(), bytes, temporary));
    if (::fsync(fd.get()) != 0) return SystemError("cannot sync " + temporary, errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0) return SystemError("cannot rename to " + path, errno);
    return Ok();
  }

  StorePaths paths_;
  std::atomic<int64_t> counter_{0};
  Synchronized<std::set<Digest>> verified_;
};

class MemoryBlobStore : public BlobStore {
 public:
  Result<Digest> Put(std::span<const std::byte> bytes) override {
    Digest digest = DigestOf(bytes);
    auto copy = std::make_shared<const std::string>(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    blobs_.With([&](auto& blobs) { blobs.emplace(digest, std::move(copy)); });
    return digest;
  }
  Result<BlobView> Get(const Digest& digest) override {
    auto found = blobs_.With([&](auto& blobs) {
      auto it = blobs.find(digest);
      return it == blobs.end() ? std::shared_ptr<const std::string>() : it->second;
    });
    if (!found) return Error{ErrorCode::kNotFound, "blob " + digest.hex() + " is not in the store"};
    return BlobView{std::as_bytes(std::span(*found)), found};
  }
  Result<bool> Contains(const Digest& digest) override {
    return blobs_.With([&](auto& blobs) { return blobs.count(digest) > 0; });
  }

 private:
  Synchronized<std::map<Digest, std::shared_ptr<const std::string>>> blobs_;
};

}  // namespace

std::unique_ptr<BlobStore> OpenBlobDirectory(const StorePaths& paths) { return std::make_unique<DirectoryBlobStore>(paths); }
std::unique_ptr<BlobStore> NewMemoryBlobStore() { return std::make_unique<MemoryBlobStore>(); }

}  // namespace pare::storage
