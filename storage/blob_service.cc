#include "storage/blob_service.h"

namespace pare::storage {
namespace {

// A message: one line of JSON, a newline, raw bytes.
std::string Pack(const Json& head, std::string_view payload = {}) {
  std::string out = Canonical(head) + "\n";
  out += payload;
  return out;
}

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, "blob service: " + text}; }

}  // namespace

bool IsBlobServiceReply(std::string_view reply) {
  auto json = ParseJson(reply.substr(0, reply.find('\n')), "reply");
  if (!json.ok() || !json->is_object()) return false;
  auto message = StringField(*json, "message");
  return message.ok() && message->starts_with("blob service: ");
}

std::string BlobService::Handle(std::string_view request) {
  size_t end = request.find('\n');
  auto json = ParseJson(request.substr(0, end), "blob request");
  if (!json.ok() || !json->is_object() || end == std::string_view::npos) {
    return Pack({{"id", 0}, {"ok", false}, {"code", "invalid"}, {"message", "blob service: not a request"}});
  }
  int64_t id = 0;
  if (auto value = IntField(*json, "id"); value.ok()) id = *value;
  Result<std::string> reply = Dispatch(*json, request.substr(end + 1));
  if (reply.ok()) {
    // Dispatch leaves room for the id: it returns the rest of the head and the payload.
    return "{\"id\":" + std::to_string(id) + "," + *reply;
  }
  return Pack({{"id", id}, {"ok", false}, {"code", ToString(reply.error().code)}, {"message", reply.error().message}});
}

Result<std::string> BlobService::Dispatch(const Json& request, std::string_view payload) {
  ASSIGN_OR_RETURN(std::string op, StringField(request, "op"));
  if (op == "get") return Get(request);
  if (op == "begin") return Begin(request);
  if (op == "chunk") return Chunk(request, payload);
  if (op == "commit") return Commit(request);
  if (op == "stat") {
    ASSIGN_OR_RETURN(Digest digest, DigestField(request, "digest"));
    ASSIGN_OR_RETURN(bool there, blobs_.Contains(digest));
    return std::string("\"ok\":true,\"there\":") + (there ? "true" : "false") + "}\n";
  }
  return Bad("unknown operation '" + op + "'");
}

Result<std::string> BlobService::Get(const Json& request) {
  ASSIGN_OR_RETURN(Digest digest, DigestField(request, "digest"));
  ASSIGN_OR_RETURN(int64_t offset, IntField(request, "offset"));
  ASSIGN_OR_RETURN(int64_t length, IntField(request, "length"));
  ASSIGN_OR_RETURN(BlobView view, blobs_.Get(digest));
  auto size = static_cast<int64_t>(view.bytes.size());
  if (offset < 0 || offset > size || length < 0 || length > kBlobChunk) return Bad("get outside the blob, or of more than 1 MiB");
  length = std::min(length, size - offset);
  return "\"ok\":true,\"size\":" + std::to_string(size) + "}\n" + std::string(view.text().substr(static_cast<size_t>(offset), static_cast<size_t>(length)));
}

// As a Put of the same bytes here: their names are synced, and whoever collects garbage sees that they are wanted again. False: there is
// no such blob, or it is damaged, and is to be sent.
Result<bool> BlobService::PutAgain(const Digest& digest) {
  auto there = blobs_.Get(digest);
  if (!there.ok()) return false;
  TRY(blobs_.Put(there->bytes));
  return true;
}

Result<std::string> BlobService::Begin(const Json& request) {
  Digest digest;
  int64_t size = kMaxUploadBytes;
  if (request.contains("digest")) {
    ASSIGN_OR_RETURN(digest, DigestField(request, "digest"));
    ASSIGN_OR_RETURN(size, IntField(request, "size"));
    if (size < 0 || size > kMaxUploadBytes) return Bad("a blob has at most " + std::to_string(kMaxUploadBytes) + " bytes");
    ASSIGN_OR_RETURN(bool there, PutAgain(digest));
    if (there) {
      return "\"ok\":true,\"there\":true,\"upload\":0,\"offset\":" + std::to_string(size) + "}\n";
    }
    for (auto& [id, upload] : uploads_) {  // an interrupted upload of the same blob goes on
      if (upload.digest == digest && upload.size == size) {
        return "\"ok\":true,\"there\":false,\"upload\":" + std::to_string(id) + ",\"offset\":" + std::to_string(upload.have) + "}\n";
      }
    }
  }
  if (uploads_.size() >= kMaxUploads) uploads_.erase(uploads_.begin());
  ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs_.NewWriter());
  int64_t id = next_upload_++;
  uploads_[id] = Upload{digest, size, 0, std::move(writer)};
  return "\"ok\":true,\"there\":false,\"upload\":" + std::to_string(id) + ",\"offset\":0}\n";
}

Result<std::string> BlobService::Chunk(const Json& request, std::string_view payload) {
  ASSIGN_OR_RETURN(int64_t id, IntField(request, "upload"));
  ASSIGN_OR_RETURN(int64_t offset, IntField(request, "offset"));
  auto it = uploads_.find(id);
  if (it == uploads_.end()) return Error{ErrorCode::kNotFound, "blob service: no such upload; begin again"};
  Upload& upload = it->second;
  auto more = static_cast<int64_t>(payload.size());
  if (more > kBlobChunk || offset < 0 || offset > upload.size || more > upload.size - offset) return Bad("chunk outside the upload");
  // A repeated chunk brings nothing new; one after a lost one is sent again: the answer tells from where.
  if (int64_t known = upload.have - offset; known >= 0 && more > known) {
    Status status = upload.writer->Append(payload.substr(static_cast<size_t>(known)));
    if (!status.ok()) {  // a part may have been written
      uploads_.erase(it);
      return status.error();
    }
    upload.have = offset + more;
  }
  return "\"ok\":true,\"offset\":" + std::to_string(upload.have) + "}\n";
}

Result<std::string> BlobService::Commit(const Json& request) {
  ASSIGN_OR_RETURN(int64_t id, IntField(request, "upload"));
  auto it = uploads_.find(id);
  if (it == uploads_.end()) {
    // A repeated commit finds its upload gone and its blob there. The first may have failed behind the rename: the Put syncs.
    if (auto digest = DigestField(request, "digest"); digest.ok()) {
      ASSIGN_OR_RETURN(bool there, PutAgain(*digest));
      if (there) return std::string("\"ok\":true}\n");
    }
    return Error{ErrorCode::kNotFound, "blob service: no such upload; begin again"};
  }
  Digest digest = it->second.digest;
  if (digest.is_none()) {
    ASSIGN_OR_RETURN(digest, DigestField(request, "digest"));
  }
  Upload upload = std::move(it->second);
  uploads_.erase(it);
  ASSIGN_OR_RETURN(Digest stored, upload.writer->Finish(digest));
  CHECK(stored == digest);
  return std::string("\"ok\":true}\n");
}

Result<std::unique_ptr<BlobServer>> BlobServer::Start(const std::string& endpoint, BlobStore& blobs) {
  ASSIGN_OR_RETURN(std::unique_ptr<ServerTransport> transport, ListenZmq(endpoint));
  std::unique_ptr<BlobServer> server(new BlobServer());
  server->endpoint_ = transport->endpoint();
  // The socket moves to the thread before its first use there; nobody else touches it again.
  server->thread_ = std::thread([&blobs, ending = &server->ending_, transport = std::shared_ptr<ServerTransport>(std::move(transport))] {
    BlobService service(blobs);
    while (!ending->load()) {
      for (Incoming& in : transport->Receive(Millis(100), 16)) transport->Send(in.peer, service.Handle(in.message));
    }
  });
  return server;
}

BlobServer::~BlobServer() {
  ending_ = true;
  if (thread_.joinable()) thread_.join();
}

}  // namespace pare::storage
