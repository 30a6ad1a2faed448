// RemoteBlobStore: a BlobStore through the blob service.
#include <mutex>

#include "storage/blob_service.h"

namespace pare::storage {
namespace {

constexpr Millis kRepeatAfter{3'000};

struct Answer {
  Json head;
  std::string payload;
};

class RemoteBlobStore : public BlobStore {
 public:
  RemoteBlobStore(std::unique_ptr<ClientTransport> transport, Millis timeout) : transport_(std::move(transport)), timeout_(timeout) {}

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
  Status Upload(const Digest& digest, std::string_view text) {
    ASSIGN_OR_RETURN(auto begun, Exchange({{{"op", "begin"}, {"digest", digest.hex()}, {"size", text.size()}}}, {}));
    if (begun[0].head.value("there", false)) return Ok();
    ASSIGN_OR_RETURN(int64_t upload, IntField(begun[0].head, "upload"));
    ASSIGN_OR_RETURN(int64_t offset, IntField(begun[0].head, "offset"));
    auto size = static_cast<int64_t>(text.size());
    while (offset < size) {
      std::vector<Json> requests;
      std::vector<std::string_view> payloads;
      for (int i = 0; i < kBlobCredit && offset < size; ++i) {
        int64_t length = std::min(kBlobChunk, size - offset);
        requests.push_back({{"op", "chunk"}, {"upload", upload}, {"offset", offset}});
        payloads.push_back(text.substr(static_cast<size_t>(offset), static_cast<size_t>(length)));
        offset += length;
      }
      ASSIGN_OR_RETURN(auto answers, Exchange(requests, payloads));
      ASSIGN_OR_RETURN(offset, IntField(answers.back().head, "offset"));
    }
    auto committed = Exchange({{{"op", "commit"}, {"upload", upload}}}, {});
    return committed.ok() ? Ok() : Status(committed.error());
  }

  // Sends all requests and collects their answers, repeating what stays unanswered: every operation may be repeated.
  Result<std::vector<Answer>> Exchange(const std::vector<Json>& requests, const std::vector<std::string_view>& payloads) {
    int64_t first = next_id_;
    next_id_ += static_cast<int64_t>(requests.size());
    std::vector<Answer> answers(requests.size());
    std::vector<bool> have(requests.size());
    size_t missing = requests.size();
    Millis deadline = clock_.Monotonic() + timeout_, repeat{0};
    while (missing > 0) {
      Millis now = clock_.Monotonic();
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
        repeat = now + kRepeatAfter;
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
  SystemClock clock_;
  int64_t next_id_ = 1;
};

}  // namespace

std::unique_ptr<BlobStore> NewRemoteBlobStore(std::unique_ptr<ClientTransport> transport, Millis timeout) {
  return std::make_unique<RemoteBlobStore>(std::move(transport), timeout);
}

Result<std::unique_ptr<BlobStore>> ConnectBlobStore(const std::string& endpoint, Millis timeout) {
  ASSIGN_OR_RETURN(std::unique_ptr<ClientTransport> transport, ConnectZmq(endpoint));
  return NewRemoteBlobStore(std::move(transport), timeout);
}

}  // namespace pare::storage
