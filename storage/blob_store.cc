#include "storage/blob_store.h"

namespace pare::storage {
namespace {

class CollectingWriter : public BlobWriter {
 public:
  explicit CollectingWriter(BlobStore& store) : store_(store) {}

  Status Append(std::span<const std::byte> bytes) override {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return Ok();
  }

  Result<Digest> Finish(const Digest& expected) override {
    if (Digest found = DigestOf(std::string_view(bytes_)); !expected.is_none() && found != expected) {
      return Error{ErrorCode::kCorrupt, "blob " + expected.hex() + ": the " + std::to_string(bytes_.size()) + " bytes that arrived have SHA-256 " + found.hex()};
    }
    return store_.Put(std::string_view(bytes_));
  }

 private:
  BlobStore& store_;
  std::string bytes_;
};

}  // namespace

Result<bool> BlobStore::Holds(const Digest& digest, int64_t) { return Contains(digest); }

Result<std::unique_ptr<BlobWriter>> BlobStore::NewWriter() { return std::unique_ptr<BlobWriter>(std::make_unique<CollectingWriter>(*this)); }

}  // namespace pare::storage
