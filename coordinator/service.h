// Service: the scheduling core over a store, without sockets. The event loop feeds it messages; a command that finds no
// living coordinator opens one on the local store and calls Handle. Belongs to one thread.
//
// The order that keeps the promise "nothing acknowledged is lost" is in Flush, and nowhere else: blobs, then one
// transaction with all rows since the last Flush, and only then are the messages given out. If that fails, everything is
// kept and tried again; meanwhile nothing is applied, so that no fact exists in memory alone for long and none is told.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/queries.h"
#include "coordinator/scheduler.h"
#include "storage/gc.h"
#include "storage/store.h"

namespace pare::coordinator {

struct ServiceOptions {
  Config config;
  std::string host;  // what agents compare with their own; empty: this machine's
};

// What a service stands on; all outlive it.
struct Backend {
  storage::Index* index = nullptr;
  storage::BlobStore* blobs = nullptr;
  const Clock* clock = nullptr;
  std::string store;  // directory, for agents on this host; empty: none
  storage::CollectableBlobs* collectable = nullptr;  // null: there is no collection
};

class Service {
 public:
  // Takes the store's lock and loads it. kConflict while a coordinator lives, kVersion, kCorrupt, kIo as Store::Open.
  static Result<std::unique_ptr<Service>> Open(const std::string& root, const ServiceOptions& options = {});
  // On parts that the caller owns.
  static Result<std::unique_ptr<Service>> Create(const Backend& backend, const ServiceOptions& options);
  ~Service();

  // One request, applied and durable when this returns. Without a reserve (storage/reserve.h) only questions and gc.
  Reply Handle(const Request& request);

  // For the event loop. REQUIRES of Receive and Tick: !blocked().
  void Receive(const PeerId& peer, const Message& message);
  void Apply(const Event& event);
  void Tick() { Apply(coordinator::Tick{}); }
  // Makes durable what was applied; then the messages are ready.
  Status Flush();
  std::vector<Send> TakeSends() { return std::exchange(ready_, {}); }
  // The last Flush failed.
  bool blocked() const { return blocked_; }
  bool stopping() const { return stopping_; }

  const Scheduler& scheduler() const { return scheduler_; }
  std::optional<Millis> NextDeadline() const { return scheduler_.NextDeadline(); }
  storage::Store* store() { return store_.get(); }
  void set_blob_endpoint(std::string endpoint) { scheduler_.set_blob_endpoint(std::move(endpoint)); }
  // History lines of the turn, for the log; cleared by the call.
  std::vector<storage::EventRow> TakeEvents() { return std::exchange(events_, {}); }

 private:
  Service(const Backend& backend, const ServiceOptions& options, std::unique_ptr<storage::Store> store, std::unique_ptr<Clock> clock);
  Status Start();

  void OnRequest(const PeerId& peer, const Request& request);
  Result<Event> EventOf(const PeerId& peer, const Request& request);
  Result<Event> SubmitOf(const Caller& caller, const Json& args);
  void CheckFinished(const PeerId& peer, const StepFinished& finished);
  void CheckInputs(const StepKey& key);
  // Finished steps among `keys` whose artifacts are gone run again.
  // `thoroughly`: also those whose bytes are damaged.
  void CheckArtifacts(const std::vector<StepKey>& keys, bool thoroughly = false);
  bool IsGone(const Digest& blob);
  bool IsGone(const storage::BlobReference& blob);
  bool Present(const Digest& artifact, const ArtifactRecord& record, bool thoroughly);
  // collect.cc: request gc.
  Result<Json> Collect(const Json& args);
  void ReplyTo(const PeerId& peer, int64_t id, Result<Json> result);
  QueryContext Context();
  Now Time() const { return {backend_.clock->Monotonic(), backend_.clock->Wall()}; }

  std::unique_ptr<storage::Store> store_;  // of Open
  std::unique_ptr<Clock> clock_;           // of Open
  std::unique_ptr<storage::CollectableBlobs> collectable_;  // of Open
  Backend backend_;
  Scheduler scheduler_;
  Actions pending_;
  std::vector<Send> ready_;
  std::vector<storage::EventRow> events_;
  bool blocked_ = false;
  bool stopping_ = false;
};

// What a request is told, before the reason, while the disk is full. Questions are answered and garbage is collected all the same.
inline constexpr const char* kRefusedWhileFull = "the store takes no writes now, so nothing is accepted (running steps go on; free some space)";

// "local" requests are answered to this peer.
inline constexpr const char* kLocalPeer = "";
std::string HostName();

}  // namespace pare::coordinator
