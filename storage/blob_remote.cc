// RemoteBlobStore: a BlobStore through the blob service.
#include <mutex>

#include "storage/blob_service.h"

namespace pare::storage {
namespace {

constexpr int kRepeats = 10;  // of a request without an answer, within the timeout

struct Answer {
  Json head;
  std::string payload;
};

class RemoteBlobStore : public BlobStore {
 public:
  RemoteBlobStore(std::unique_ptr<ClientTransport> transport, Millis timeout, std::shared_ptr<const Clock> clock)
      : transport_(std::move(transport)), timeout_(timeout), clock_(std::move(clock)) {}

  Result<Digest> Put(std::span<const std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    Digest digest = DigestOf(bytes);
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    // An upload that the service forgot (restart, eviction) starts again.
    for (int tries = 0;; ++tries) {
      Status status = Upload(digest, text);
      if (status.ok()) return digest;
      if (status.error().code != ErrorCode::kNotFound || tries == 3) return status.error();
    }
  }

  Result<std::unique_ptr<BlobWriter>> NewWriter() override;

  Result<BlobView> Get(const Digest& digest) override {
    std::lock_guard lock(mutex_);
    auto bytes = std::make_shared<std::string>();
    int64_t size = -1;
    while (size < 0 || static_cast<int64_t>(bytes->size()) < size) {
      // Up to kBlobCredit chunks on the way; answers come back in order.
      std::vector<Json> requests;
      auto at = static_cast<int64_t>(bytes->size());
      int64_t count = size < 0 ? 1 : std::min<int64_t>(kBlobCredit, (size - at + kBlobChunk - 1) / kBlobChunk);
      for (int64_t i = 0; i < count; ++i) {
        requests.push_back({{"op", "get"}, {"digest", digest.hex()}, {"offset", at + i * kBlobChunk}, {"length", kBlobChunk}});
      }
      ASSIGN_OR_RETURN(std::vector<Answer> answers, Exchange(requests, {}));
      for (Answer& answer : answers) {
        ASSIGN_OR_RETURN(size, IntField(answer.head, "size"));
        *bytes += answer.payload;
      }
      if (answers[0].payload.empty() && size > at) return Error{ErrorCode::kCorrupt, "blob service: an empty chunk"};
    }
    if (DigestOf(std::string_view(*bytes)) != digest) return Error{ErrorCode::kCorrupt, "blob " + digest.hex() + " arrived damaged"};
    return BlobView{std::as_bytes(std::span(*bytes)), bytes};
  }

  Result<bool> Contains(const Digest& digest) override {
    std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(std::vector<Answer> answers, Exchange({{{"op", "stat"}, {"digest", digest.hex()}}}, {}));
    return BoolField(answers[0].head, "there");
  }

 private:
  friend class RemoteBlobWriter;

  Status Upload(const Digest& digest, std::string_view text) {
    ASSIGN_OR_RETURN(auto begun, Exchange({{{"op", "begin"}, {"digest", digest.hex()}, {"size", text.size()}}}, {}));
    if (begun[0].head.value("there", false)) return Ok();
    ASSIGN_OR_RETURN(int64_t upload, IntField(begun[0].head, "upload"));
    ASSIGN_OR_RETURN(int64_t offset, IntField(begun[0].head, "offset"));
    if (offset < 0 || offset > static_cast<int64_t>(text.size())) return Error{ErrorCode::kCorrupt, "blob service: an upload beyond its end"};
    TRY(SendChunks(upload, offset, text.substr(static_cast<size_t>(offset))));
    return Finish(upload, digest);
  }

  // The bytes of the upload from `start` on.
  Status SendChunks(int64_t upload, int64_t start, std::string_view text) {
    int64_t offset = start, end = start + static_cast<int64_t>(text.size());
    while (offset < end) {
      std::vector<Json> requests;
      std::vector<std::string_view> payloads;
      for (int64_t at = offset; at < end && payloads.size() < kBlobCredit; at += kBlobChunk) {
        requests.push_back({{"op", "chunk"}, {"upload", upload}, {"offset", at}});
        payloads.push_back(text.substr(static_cast<size_t>(at - start), kBlobChunk));
      }
      ASSIGN_OR_RETURN(auto answers, Exchange(requests, payloads));
      int64_t reached = offset;
      for (const Answer& answer : answers) {
        ASSIGN_OR_RETURN(int64_t have, IntField(answer.head, "offset"));
        reached = std::max(reached, have);
      }
      if (reached == offset || reached > end) return Error{ErrorCode::kCorrupt, "blob service: an upload goes on at byte " + std::to_string(reached) + ", not after " + std::to_string(offset)};
      offset = reached;
    }
    return Ok();
  }

  Status Finish(int64_t upload, const Digest& digest) {
    auto committed = Exchange({{{"op", "commit"}, {"upload", upload}, {"digest", digest.hex()}}}, {});
    return committed.ok() ? Ok() : Status(committed.error());
  }

  // Sends all requests and collects their answers, repeating what stays unanswered: every operation may be repeated.
  Result<std::vector<Answer>> Exchange(const std::vector<Json>& requests, const std::vector<std::string_view>& payloads) {
    int64_t first = next_id_;
    next_id_ += static_cast<int64_t>(requests.size());
    std::vector<Answer> answers(requests.size());
    std::vector<bool> have(requests.size());
    size_t missing = requests.size();
    Millis deadline = clock_->Monotonic() + timeout_, repeat{0};
    while (missing > 0) {
      Millis now = clock_->Monotonic();
      if (now >= deadline) return Error{ErrorCode::kUnreachable, "the blob service does not answer"};
      if (now >= repeat) {
        for (size_t i = 0; i < requests.size(); ++i) {
          if (have[i]) continue;
          Json head = requests[i];
          head["id"] = first + static_cast<int64_t>(i);
          std::string message = Canonical(head) + "\n";
          if (i < payloads.size()) message += payloads[i];
          transport_->Send(message);
        }
        repeat = now + timeout_ / kRepeats;
      }
      auto bytes = transport_->Receive(std::min(Millis(200), deadline - now));
      if (!bytes) continue;
      size_t end = bytes->find('\n');
      auto head = ParseJson(std::string_view(*bytes).substr(0, end), "blob reply");
      if (!head.ok() || end == std::string::npos) return Error{ErrorCode::kCorrupt, "blob service: a reply does not parse"};
      auto id = IntField(*head, "id");
      if (!id.ok() || *id < first || *id >= next_id_ || have[static_cast<size_t>(*id - first)]) continue;
      if (!head->value("ok", false)) return Error{ErrorCodeFromString(head->value("code", "internal")), head->value("message", "")};
      auto i = static_cast<size_t>(*id - first);
      answers[i] = {*std::move(head), bytes->substr(end + 1)};
      have[i] = true;
      --missing;
    }
    return answers;
  }

  std::mutex mutex_;
  std::unique_ptr<ClientTransport> transport_;
  Millis timeout_;
  std::shared_ptr<const Clock> clock_;
  int64_t next_id_ = 1;
};

// Keeps as many bytes as may be in flight.
class RemoteBlobWriter : public BlobWriter {
 public:
  RemoteBlobWriter(RemoteBlobStore& store, int64_t upload) : store_(store), upload_(upload) {}

  Status Append(std::span<const std::byte> bytes) override {
    hash_.Update(bytes);
    waiting_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return waiting_.size() < kBlobCredit * kBlobChunk ? Ok() : SendWaiting();
  }

  Result<Digest> Finish(const Digest& expected) override {
    Digest digest(hash_.Finish());
    if (!expected.is_none() && digest != expected) {
      return Error{ErrorCode::kCorrupt, "blob " + expected.hex() + ": what was written has SHA-256 " + digest.hex()};
    }
    TRY(SendWaiting());
    std::lock_guard lock(store_.mutex_);
    TRY(store_.Finish(upload_, digest));
    return digest;
  }

 private:
  Status SendWaiting() {
    std::lock_guard lock(store_.mutex_);
    TRY(store_.SendChunks(upload_, sent_, waiting_));
    sent_ += static_cast<int64_t>(waiting_.size());
    waiting_.clear();
    return Ok();
  }

  RemoteBlobStore& store_;
  int64_t upload_, sent_ = 0;
  std::string waiting_;
  Sha256 hash_;
};

Result<std::unique_ptr<BlobWriter>> RemoteBlobStore::NewWriter() {
  std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(auto begun, Exchange({{{"op", "begin"}}}, {}));
  ASSIGN_OR_RETURN(int64_t upload, IntField(begun[0].head, "upload"));
  return std::unique_ptr<BlobWriter>(std::make_unique<RemoteBlobWriter>(*this, upload));
}

}  // namespace

std::unique_ptr<BlobStore> NewRemoteBlobStore(std::unique_ptr<ClientTransport> transport, Millis timeout, std::shared_ptr<const Clock> clock) {
  return std::make_unique<RemoteBlobStore>(std::move(transport), timeout, std::move(clock));
}

Result<std::unique_ptr<BlobStore>> ConnectBlobStore(const std::string& endpoint, Millis timeout) {
  ASSIGN_OR_RETURN(std::unique_ptr<ClientTransport> transport, ConnectZmq(endpoint));
  return NewRemoteBlobStore(std::move(transport), timeout, std::make_shared<SystemClock>());
}

}  // namespace pare::storage
