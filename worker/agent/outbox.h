// Outbox: what the agent has to say about its leases and repeats until the coordinator has it. Pure: no clock, no socket.
//
// Per lease: that it is prepared (of a gang; answered by Commit), metric points (acknowledged by sequence), the newest
// snapshot, and the one message that ends the lease (StepFinished, StepAborted or Released). They leave in this order, so that
// the coordinator has all points before the end. Everything of a lease is forgotten with the acknowledgement of its end, or when it is stale.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "common/clock.h"
#include "common/messages.h"

namespace pare::worker {

inline constexpr Millis kResendInterval{1000};   // or the heartbeat, if that is longer
inline constexpr Millis kProgressInterval{200};   // points are gathered this long before they leave
inline constexpr size_t kMaxWaitingPoints = 1000;  // per lease; beyond, the oldest that is no epoch end goes first
inline constexpr size_t kMaxPointsPerMessage = 256;

class Outbox {
 public:
  void AddPoint(const Lease& lease, Json values);
  // How long an acknowledgement is waited for. Slow heartbeats mean a slow or busy cluster.
  void set_resend_interval(Millis interval) { resend_ = interval; }
  // A newer snapshot replaces one that is still waiting: only the newest is ever resumed from. Numbers it.
  void AddSnapshot(const SnapshotTaken& snapshot);
  void AddPrepared(const Prepared& prepared);
  // StepFinished, StepAborted or Released. A second end of the same lease is ignored.
  void AddEnd(const Lease& lease, Message end);

  void Acknowledge(const Ack& ack);
  // True: the first one, of who is prepared.
  bool Acknowledge(const Commit& commit);
  void Forget(const Lease& lease) { items_.erase(lease); }

  // What has to be sent now. Everything counts as sent afterwards.
  std::vector<Message> Due(Millis now);
  // When Due has something next; nothing: not before something is added. A time in the past is now.
  std::optional<Millis> NextDue() const;
  // After a Welcome: all that is not acknowledged is due at once.
  void SendAllAgain();
  // The end of this lease is waiting for its acknowledgement: send it again at the next Due.
  void SendEndAgain(const Lease& lease);

  bool HasEnd(const Lease& lease) const;
  bool empty() const { return items_.empty(); }

 private:
  struct Item {
    int64_t next_sequence = 1;
    std::deque<MetricPoint> points;
    int64_t acknowledged = 0;   // points up to here are durable at the coordinator
    int64_t sent_sequence = 0;  // points up to here were sent at least once since the last Welcome
    std::optional<Millis> points_sent;
    std::optional<Millis> oldest_sent;  // when the first of `points`, or one before it, was sent last
    int64_t next_snapshot = 1;
    std::optional<SnapshotTaken> snapshot;
    std::optional<Millis> snapshot_sent;
    std::optional<Prepared> prepared;  // kept after the Commit: a coordinator that starts again has forgotten it
    std::optional<Millis> prepared_sent;
    bool committed = false;  // since the last Welcome
    bool begun = false;      // there was a Commit
    std::optional<Message> end;
    std::optional<Millis> end_sent;
  };
  void AppendPoints(const Lease& lease, Item& item, Millis now, std::vector<Message>& out) const;
  bool IsDue(const std::optional<Millis>& sent, Millis now) const { return !sent || now - *sent >= resend_; }

  Millis resend_ = kResendInterval;
  std::map<Lease, Item> items_;
};

}  // namespace pare::worker
