#include "cli/connection.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "cli/probe.h"
#include "common/messages.h"
#include "common/transport.h"
#include "coordinator/service.h"
#include "storage/blob_service.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

Result<Json> FromReply(Reply reply) {
  if (reply.ok) return std::move(reply.result);
  return Error{ErrorCodeFromString(reply.code), reply.message};
}

// What answered says nothing that a coordinator says. The blob service has a port of its own, and is easily taken for it.
Error NotACoordinator(const std::string& endpoint, const std::string& answer, const Error& problem) {
  if (problem.code == ErrorCode::kVersion) return problem.With("coordinator at " + endpoint);
  std::string text = "what listens at " + endpoint + " is no coordinator: " + problem.message;
  if (storage::IsBlobServiceReply(answer)) {
    text = endpoint + " is a coordinator's blob port (--blob-listen), which serves files to workers, and no port for commands";
  }
  return Error{ErrorCode::kUnreachable, text + "; give the `endpoint` of the coordinator's `ready` line, which is what it was told to --listen to"};
}

class RemoteConnection : public Connection {
 public:
  RemoteConnection(std::unique_ptr<ClientTransport> transport, std::string endpoint, Millis timeout)
      : transport_(std::move(transport)), endpoint_(std::move(endpoint)), timeout_(timeout) {}

  bool local() const override { return false; }
  Result<Json> Call(const std::string& method, const Json& args) override {
    Request request{++last_id_, method, args};
    transport_->Send(Encode(request));
    Millis deadline = clock_.Monotonic() + timeout_;
    while (clock_.Monotonic() < deadline) {
      auto bytes = transport_->Receive(std::min(Millis(200), deadline - clock_.Monotonic()));
      if (!bytes) continue;
      auto message = Decode(*bytes);
      if (!message.ok()) return NotACoordinator(endpoint_, *bytes, message.error());
      auto* reply = std::get_if<Reply>(&*message);
      if (reply != nullptr && reply->id == request.id) return FromReply(std::move(*reply));
    }
    return Error{ErrorCode::kUnreachable, "no answer from the coordinator at " + endpoint_ + " within " + std::to_string(timeout_.count() / 1000) + " s"};
  }

 private:
  std::unique_ptr<ClientTransport> transport_;
  std::string endpoint_;
  Millis timeout_;
  SystemClock clock_;
  int64_t last_id_ = 0;
};

class LocalConnection : public Connection {
 public:
  explicit LocalConnection(std::unique_ptr<coordinator::Service> service) : service_(std::move(service)) {}
  bool local() const override { return true; }
  Result<Json> Call(const std::string& method, const Json& args) override { return FromReply(service_->Handle({++last_id_, method, args})); }

 private:
  std::unique_ptr<coordinator::Service> service_;
  int64_t last_id_ = 0;
};

// Nothing also for a path that cannot be read from here.
std::optional<storage::CoordinatorInfo> CoordinatorOf(const std::string& store) {
  auto living = storage::FindCoordinator(store);
  return living.ok() ? *living : std::nullopt;
}

// A living coordinator, or the store itself; kConflict when another process has it that is no coordinator (yet).
Result<std::unique_ptr<Connection>> TryStore(const std::string& store) {
  ASSIGN_OR_RETURN(auto living, storage::FindCoordinator(store));
  if (living) return ConnectTo(living->endpoint);
  ASSIGN_OR_RETURN(auto service, coordinator::Service::Open(store));
  return std::unique_ptr<Connection>(new LocalConnection(std::move(service)));
}

// A coordinator started in the same breath, or restarted by its supervisor, listens a moment later.
Result<std::unique_ptr<Connection>> ConnectPatiently(const std::string& endpoint) {
  SystemClock clock;
  Millis began = clock.Monotonic();
  for (bool told = false;;) {
    auto connection = ConnectTo(endpoint);
    Millis waited = clock.Monotonic() - began;
    if (connection.ok() || connection.error().code != ErrorCode::kUnreachable || waited >= kConnectPatience) return connection;
    if (!told && waited >= kPatienceIsTold) {
      std::fprintf(stderr, "pare: waiting for a coordinator at %s\n", endpoint.c_str());
      told = true;
    }
    ::poll(nullptr, 0, 50);
  }
}

}  // namespace

bool MayPass(const Error& error) { return error.code == ErrorCode::kConflict || error.code == ErrorCode::kUnreachable; }

Result<std::unique_ptr<Connection>> ConnectTo(const std::string& endpoint, Millis timeout) {
  ASSIGN_OR_RETURN(auto transport, ConnectZmq(endpoint));
  TRY(Probe(endpoint, timeout));
  return std::unique_ptr<Connection>(new RemoteConnection(std::move(transport), endpoint, timeout));
}

Result<std::unique_ptr<Connection>> Connect(const Target& target, bool create) {
  if (!target.coordinator.empty()) return ConnectPatiently(target.coordinator);
  std::error_code ignored;
  storage::StorePaths paths(target.store);
  // Blobs without an index are a store as well, if a damaged one.
  if (!create && !std::filesystem::exists(paths.index(), ignored) && !std::filesystem::exists(paths.blobs(), ignored)) {
    return Error{ErrorCode::kNotFound, "there is no store in " + target.store + "; `pare run RECIPE` makes one (or give --store DIR or --coordinator ENDPOINT)"};
  }
  SystemClock clock;
  Millis deadline = clock.Monotonic() + kConnectPatience;
  for (;;) {
    auto connection = TryStore(target.store);
    if (connection.ok() || !MayPass(connection.error()) || clock.Monotonic() >= deadline) return connection;
    ::poll(nullptr, 0, 50);
  }
}

Result<std::unique_ptr<storage::BlobStore>> OpenBlobs(Connection& connection) {
  ASSIGN_OR_RETURN(Json ping, connection.Call("ping", Json::object()));
  ASSIGN_OR_RETURN(std::string store, StringField(ping, "store"));
  ASSIGN_OR_RETURN(std::string blob_endpoint, StringField(ping, "blob_endpoint"));
  if (connection.local()) return storage::OpenBlobDirectory(storage::StorePaths(store));
  // A path means something on its own host only: another host may have a store of its own there.
  auto living = CoordinatorOf(store);
  bool here = living && living->blob_endpoint == blob_endpoint && living->pid == ping.value("pid", int64_t{0});
  if (here && ::access(storage::StorePaths(store).blobs().c_str(), R_OK | W_OK | X_OK) == 0) {
    return storage::OpenBlobDirectory(storage::StorePaths(store));
  }
  if (blob_endpoint.empty()) return Error{ErrorCode::kConflict, "the coordinator has neither a store directory that this host sees nor a blob service"};
  return storage::ConnectBlobStore(blob_endpoint);
}

int ExitCodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid: return 2;
    case ErrorCode::kNotFound: return 3;
    case ErrorCode::kUnreachable: return 4;
    case ErrorCode::kStopped: return 130;
    default: return 1;
  }
}

int Fail(const Error& error, bool json) {
  if (json) std::printf("%s\n", Canonical({{"error", {{"code", ToString(error.code)}, {"message", error.message}}}}).c_str());
  std::fprintf(stderr, "pare: %s\n", error.message.c_str());
  return ExitCodeOf(error.code);
}

}  // namespace pare::cli
