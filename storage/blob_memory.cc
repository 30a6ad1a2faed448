// MemoryBlobStore: for tests.
#include <map>

#include "common/synchronized.h"
#include "storage/store.h"

namespace pare::storage {
namespace {

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

  Result<bool> Holds(const Digest& digest, int64_t bytes) override {
    return blobs_.With([&](auto& blobs) {
      auto it = blobs.find(digest);
      return it != blobs.end() && static_cast<int64_t>(it->second->size()) == bytes;
    });
  }

 private:
  Synchronized<std::map<Digest, std::shared_ptr<const std::string>>> blobs_;
};

}  // namespace

std::unique_ptr<BlobStore> NewMemoryBlobStore() { return std::make_unique<MemoryBlobStore>(); }

}  // namespace pare::storage
