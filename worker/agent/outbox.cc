#include "worker/agent/outbox.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pare::worker {
namespace {

// Points that people and decisions look at later: those with a validation accuracy, and those at a whole epoch.
bool EndsAnEpoch(const Json& values) {
  if (!values.is_object()) return false;
  if (values.contains("accuracy")) return true;
  auto epoch = values.find("epoch");
  return epoch != values.end() && epoch->is_number() && std::floor(epoch->get<double>()) == epoch->get<double>();
}

}  // namespace

void Outbox::AddPoint(const Lease& lease, Json values) {
  Item& item = items_[lease];
  if (item.points.size() >= kMaxWaitingPoints) {
    auto victim = std::find_if(item.points.begin(), item.points.end(),
                               [](const MetricPoint& point) { return !EndsAnEpoch(point.values.Tree()); });
    item.points.erase(victim == item.points.end() ? item.points.begin() : victim);
  }
  item.points.push_back({item.next_sequence++, std::move(values)});
}

void Outbox::AddSnapshot(const SnapshotTaken& snapshot) {
  Item& item = items_[snapshot.lease];
  item.snapshot = snapshot;
  item.snapshot->sequence = item.next_snapshot++;
  item.snapshot_sent.reset();
}

void Outbox::AddEnd(const Lease& lease, Message end) {
  Item& item = items_[lease];
  if (!item.end) item.end = std::move(end);
  item.prepared.reset();
}

void Outbox::AddPrepared(const Prepared& prepared) { items_[prepared.lease].prepared = prepared; }

bool Outbox::Acknowledge(const Commit& commit) {
  auto found = items_.find(commit.lease);
  if (found == items_.end() || !found->second.prepared) return false;
  found->second.committed = true;
  return !std::exchange(found->second.begun, true);
}

void Outbox::Acknowledge(const Ack& ack) {
  auto found = items_.find(ack.lease);
  if (found == items_.end()) return;
  Item& item = found->second;
  if (item.end && ack.of == TypeOf(*item.end)) {
    items_.erase(found);
    return;
  }
  if (ack.of == "progress") {
    item.acknowledged = std::max(item.acknowledged, ack.sequence);
    while (!item.points.empty() && item.points.front().sequence <= ack.sequence) item.points.pop_front();
  } else if (ack.of == "snapshot_taken" && item.snapshot && item.snapshot->sequence <= ack.sequence) {
    item.snapshot.reset();
  }
}

void Outbox::AppendPoints(const Lease& lease, Item& item, Millis now, std::vector<Message>& out) const {
  if (item.points.empty()) return;
  bool again = item.points.front().sequence <= item.sent_sequence;  // sent before, not acknowledged
  bool fresh = item.points.back().sequence > item.sent_sequence;
  bool waited = !item.points_sent || now - *item.points_sent >= kProgressInterval;
  // Not when the last ones were sent: new points may come faster than that, and a lost one would never be repeated.
  bool repeat = again && IsDue(item.oldest_sent, now);
  if (!repeat && !(fresh && (waited || item.end))) return;
  if (repeat || !again) item.oldest_sent = now;
  // What comes after points that are on their way is worth nothing without them; dropped points are nobody's loss.
  Progress progress{lease, again && !repeat ? item.sent_sequence : item.acknowledged, {}};
  for (const MetricPoint& point : item.points) {
    if (!repeat && point.sequence <= item.sent_sequence) continue;
    if (progress.points.size() == kMaxPointsPerMessage) {
      int64_t last = progress.points.back().sequence;
      out.push_back(std::exchange(progress, Progress{lease, last, {}}));
    }
    progress.points.push_back(point);
  }
  out.push_back(std::move(progress));
  item.sent_sequence = item.points.back().sequence;
  item.points_sent = now;
}

std::vector<Message> Outbox::Due(Millis now) {
  std::vector<Message> due;
  for (auto& [lease, item] : items_) {
    if (item.prepared && !item.committed && IsDue(item.prepared_sent, now)) {
      due.push_back(*item.prepared);
      item.prepared_sent = now;
    }
    AppendPoints(lease, item, now, due);
    if (item.snapshot && IsDue(item.snapshot_sent, now)) {
      due.push_back(*item.snapshot);
      item.snapshot_sent = now;
    }
    if (item.end && IsDue(item.end_sent, now)) {
      due.push_back(*item.end);
      item.end_sent = now;
    }
  }
  return due;
}

std::optional<Millis> Outbox::NextDue() const {
  std::optional<Millis> next;
  auto consider = [&next](const std::optional<Millis>& sent, Millis interval) {
    Millis at = sent ? *sent + interval : Millis(0);
    next = next ? std::min(*next, at) : at;
  };
  for (const auto& [lease, item] : items_) {
    if (!item.points.empty()) {
      bool fresh = item.points.back().sequence > item.sent_sequence;
      if (fresh) consider(item.end ? std::nullopt : item.points_sent, kProgressInterval);
      if (item.points.front().sequence <= item.sent_sequence) consider(item.oldest_sent, resend_);
    }
    if (item.prepared && !item.committed) consider(item.prepared_sent, resend_);
    if (item.snapshot) consider(item.snapshot_sent, resend_);
    if (item.end) consider(item.end_sent, resend_);
  }
  return next;
}

void Outbox::SendAllAgain() {
  for (auto& [lease, item] : items_) {
    item.prepared_sent.reset();
    item.committed = false;
    item.sent_sequence = 0;
    item.points_sent.reset();
    item.oldest_sent.reset();
    item.snapshot_sent.reset();
    item.end_sent.reset();
  }
}

void Outbox::SendEndAgain(const Lease& lease) {
  if (auto found = items_.find(lease); found != items_.end()) found->second.end_sent.reset();
}

bool Outbox::HasEnd(const Lease& lease) const {
  auto found = items_.find(lease);
  return found != items_.end() && found->second.end.has_value();
}

}  // namespace pare::worker
