// Connection: how a command reaches its coordinator: over a socket, or by opening a local store that no coordinator holds.
#pragma once

#include <memory>
#include <string>

#include "common/clock.h"
#include "common/json.h"
#include "common/result.h"
#include "storage/blob_store.h"

namespace pare::cli {

struct Target {
  std::string coordinator;  // endpoint; empty: the store
  std::string store;        // directory
  bool json = false;        // print for machines
};

class Connection {
 public:
  virtual ~Connection() = default;
  // The result of docs/protocol.md, or the coordinator's error with its code. kUnreachable after `timeout` without an answer.
  virtual Result<Json> Call(const std::string& method, const Json& args) = 0;
  // True: the store itself was opened. No coordinator lives, so no step runs while this connection is there.
  virtual bool local() const = 0;
};

inline constexpr Millis kConnectPatience{5'000};  // with nobody who listens
inline constexpr Millis kPatienceIsTold{1'000};   // then a person reads what is waited for
inline constexpr Millis kAnswerPatience{3'000};   // with a coordinator of this host, which `pare run` looks after

// Another command has the store for a moment, or a coordinator starts or ends just now: worth another try.
bool MayPass(const Error& error);

// To an endpoint. kUnreachable when nobody listens there.
Result<std::unique_ptr<Connection>> ConnectTo(const std::string& endpoint, Millis timeout = Millis(10'000));
// --coordinator, else a living coordinator of the store, else the store itself. `create`: a store that is not there yet is
// made; without it that is kNotFound. Waits up to kConnectPatience for another command, or a coordinator that starts or ends
// just now.
Result<std::unique_ptr<Connection>> Connect(const Target& target, bool create = false);

// The blobs of the coordinator's store: its directory where that is this very store on this host, else its blob service.
Result<std::unique_ptr<storage::BlobStore>> OpenBlobs(Connection& connection);

// Exit codes: 0 done, 1 failed, 2 usage or recipe, 3 not found, 4 unreachable, 130 interrupted.
int ExitCodeOf(ErrorCode code);
// Prints "pare: message" (or {"error": …} with json) and returns the exit code.
int Fail(const Error& error, bool json);

}  // namespace pare::cli
