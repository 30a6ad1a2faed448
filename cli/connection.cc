#include "cli/connection.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "common/messages.h"
#include "common/transport.h"
#include "coordinator/service.h"
#include "storage/store.h"

namespace pare::cli {
namespace {

Result<Json> FromReply(Reply reply) {
  if (reply.ok) return std::move(reply.result);
  return Error{ErrorCodeFromString(reply.code), reply.message};
}

class RemoteConnection : public Connection {
 public:
  RemoteConnection(std::unique_ptr<ClientTransport> transport, std::string endpoint, Millis timeout)
      : transport_(std::move(transport)), endpoint_(std::move(endpoint)), timeout_(timeout) {}

  Result<Json> Call(const std::string& method, const Json& args) override {
    Request request{++last_id_, method, args};
    transport_->Send(Encode(request));
    Millis deadline = clock_.Monotonic() + timeout_;
    while (clock_.Monotonic() < deadline) {
      auto bytes = transport_->Receive(std::min(Millis(200), deadline - clock_.Monotonic()));
      if (!bytes) continue;
      auto message = Decode(*bytes);
      if (!message.ok()) return message.error().With("coordinator at " + endpoint_);
      auto* reply = std::get_if<Reply>(&*message);
      if (reply != nullptr && reply->id == request.id) return FromReply(std::move(*reply));
    }
    return Error{ErrorCode::kUnreachable, "no answer from the coordinator at " + endpoint_ + " within " + std::to_string(timeout_.count() / 1000) +
                                              " s; is it running? (start one with: pare coordinator --store DIR)"};
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
  Result<Json> Call(const std::string& method, const Json& args) override { return FromReply(service_->Handle({++last_id_, method, args})); }

 private:
  std::unique_ptr<coordinator::Service> service_;
  int64_t last_id_ = 0;
};

}  // namespace

Result<std::unique_ptr<Connection>> ConnectTo(const std::string& endpoint, Millis timeout) {
  ASSIGN_OR_RETURN(auto transport, ConnectZmq(endpoint));
  return std::unique_ptr<Connection>(new RemoteConnection(std::move(transport), endpoint, timeout));
}

Result<std::unique_ptr<Connection>> Connect(const Target& target, bool create) {
  if (!target.coordinator.empty()) return ConnectTo(target.coordinator);
  ASSIGN_OR_RETURN(auto living, storage::FindCoordinator(target.store));
  if (living) return ConnectTo(living->endpoint);
  if (!create && !std::filesystem::exists(storage::StorePaths(target.store).index())) {
    return Error{ErrorCode::kNotFound, "there is no store in " + target.store + " (give --store DIR or --coordinator ENDPOINT; pare run makes one)"};
  }
  ASSIGN_OR_RETURN(auto service, coordinator::Service::Open(target.store));
  return std::unique_ptr<Connection>(new LocalConnection(std::move(service)));
}

std::string DefaultStore() {
  if (const char* store = std::getenv("PARE_STORE"); store != nullptr && *store != 0) return store;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "." : home) + "/.local/share/pare";
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
