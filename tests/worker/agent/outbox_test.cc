#include "worker/agent/outbox.h"

#include <gtest/gtest.h>

namespace pare::worker {
namespace {

const Lease kLease{StepKey(std::array<uint8_t, 32>{1}), 7};
const Lease kOther{StepKey(std::array<uint8_t, 32>{2}), 8};

Json Point(double epoch) { return {{"epoch", epoch}, {"epochs", 20}}; }

std::vector<std::string> TypesOf(const std::vector<Message>& messages) {
  std::vector<std::string> types;
  for (const Message& message : messages) types.emplace_back(TypeOf(message));
  return types;
}
std::vector<int64_t> SequencesOf(const std::vector<Message>& messages) {
  std::vector<int64_t> sequences;
  for (const Message& message : messages) {
    if (auto* progress = std::get_if<Progress>(&message)) {
      for (const MetricPoint& point : progress->points) sequences.push_back(point.sequence);
    }
  }
  return sequences;
}

// Of each message: the point that the coordinator must have.
std::vector<int64_t> AftersOf(const std::vector<Message>& messages) {
  std::vector<int64_t> afters;
  for (const Message& message : messages) {
    if (auto* progress = std::get_if<Progress>(&message)) afters.push_back(progress->after);
  }
  return afters;
}

using Types = std::vector<std::string>;
using Sequences = std::vector<int64_t>;

TEST(OutboxTest, RepeatsAnEndUntilItIsAcknowledged) {
  Outbox outbox;
  outbox.AddEnd(kLease, StepFinished{kLease, DigestOf("a"), {}, 5});
  EXPECT_EQ(TypesOf(outbox.Due(Millis(0))), Types{"step_finished"});
  EXPECT_TRUE(outbox.Due(Millis(999)).empty());
  EXPECT_EQ(TypesOf(outbox.Due(Millis(1000))), Types{"step_finished"});
  outbox.Acknowledge({kLease, "step_aborted", 0});  // of something else
  outbox.Acknowledge({kOther, "step_finished", 0});
  EXPECT_FALSE(outbox.empty());
  outbox.Acknowledge({kLease, "step_finished", 0});
  EXPECT_TRUE(outbox.empty());
  EXPECT_TRUE(outbox.Due(Millis(5000)).empty());
}

TEST(OutboxTest, TheFirstEndOfALeaseStays) {
  Outbox outbox;
  outbox.AddEnd(kLease, StepFinished{kLease, DigestOf("a"), {}, 5});
  outbox.AddEnd(kLease, Released{kLease, {}, {}, 0});
  EXPECT_EQ(TypesOf(outbox.Due(Millis(0))), Types{"step_finished"});
}

TEST(OutboxTest, GathersPointsBetweenMessages) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(0.1));
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(0))), Sequences{1});
  outbox.AddPoint(kLease, Point(0.2));
  outbox.AddPoint(kLease, Point(0.3));
  EXPECT_TRUE(outbox.Due(Millis(199)).empty());
  auto due = outbox.Due(Millis(200));
  EXPECT_EQ(due.size(), 1u);
  EXPECT_EQ(SequencesOf(due), (Sequences{2, 3}));
}

TEST(OutboxTest, PointsAreRepeatedAlsoWhileNewOnesKeepComing) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(1));
  outbox.Due(Millis(0));
  outbox.AddPoint(kLease, Point(2));
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(860))), Sequences{2});
  EXPECT_EQ(*outbox.NextDue(), Millis(1000));
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(1000))), (Sequences{1, 2}));
}

TEST(OutboxTest, AMessageSaysWhichPointGoesBeforeIt) {
  Outbox outbox;
  for (size_t i = 0; i < kMaxPointsPerMessage + 1; ++i) outbox.AddPoint(kLease, Point(0.5));
  int64_t full = static_cast<int64_t>(kMaxPointsPerMessage);
  EXPECT_EQ(AftersOf(outbox.Due(Millis(0))), (Sequences{0, full}));
  outbox.AddPoint(kLease, Point(0.5));
  EXPECT_EQ(AftersOf(outbox.Due(Millis(200))), Sequences{full + 1}) << "the earlier ones are on their way";
  outbox.Acknowledge({kLease, "progress", 5});
  EXPECT_EQ(AftersOf(outbox.Due(Millis(1000))), Sequences{5}) << "from the first that is not acknowledged";
  outbox.Acknowledge({kLease, "progress", full + 2});
  outbox.AddPoint(kLease, Point(0.5));
  EXPECT_EQ(AftersOf(outbox.Due(Millis(1200))), Sequences{full + 2});
  outbox.SendAllAgain();
  EXPECT_EQ(AftersOf(outbox.Due(Millis(1300))), Sequences{full + 2});
}

TEST(OutboxTest, DroppedPointsAreNotWaitedFor) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(0.5));
  outbox.Due(Millis(0));  // on its way, then dropped here
  for (size_t i = 0; i < kMaxWaitingPoints; ++i) outbox.AddPoint(kLease, Point(1));
  auto due = outbox.Due(Millis(200));
  EXPECT_EQ(SequencesOf(due)[0], 2);
  EXPECT_EQ(AftersOf(due)[0], 0);
}

TEST(OutboxTest, RepeatsPointsThatAreNotAcknowledged) {
  Outbox outbox;
  for (double epoch : {0.1, 0.2, 0.3}) outbox.AddPoint(kLease, Point(epoch));
  outbox.Due(Millis(0));
  outbox.Acknowledge({kLease, "progress", 2});
  EXPECT_TRUE(outbox.Due(Millis(500)).empty());
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(1000))), Sequences{3});
  outbox.Acknowledge({kLease, "progress", 3});
  EXPECT_TRUE(outbox.Due(Millis(9000)).empty());
  outbox.AddPoint(kLease, Point(0.4));
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(9000))), Sequences{4});
}

TEST(OutboxTest, AFullBufferKeepsEpochEnds) {
  Outbox outbox;
  for (size_t i = 1; i <= kMaxWaitingPoints + 500; ++i) outbox.AddPoint(kLease, Point(static_cast<double>(i) / 10));
  auto sequences = SequencesOf(outbox.Due(Millis(0)));
  EXPECT_EQ(sequences.size(), kMaxWaitingPoints);
  EXPECT_EQ(sequences[0], 10);  // epoch 1.0; the points before it are gone
  EXPECT_EQ(sequences[1], 20);
  EXPECT_EQ(sequences.back(), static_cast<int64_t>(kMaxWaitingPoints + 500));
  EXPECT_TRUE(std::is_sorted(sequences.begin(), sequences.end()));
}

TEST(OutboxTest, ABufferOfEpochEndsOnlyLosesTheOldest) {
  Outbox outbox;
  for (size_t i = 1; i <= kMaxWaitingPoints + 1; ++i) outbox.AddPoint(kLease, Point(static_cast<double>(i)));
  EXPECT_EQ(SequencesOf(outbox.Due(Millis(0)))[0], 2);
}

TEST(OutboxTest, SplitsManyPointsIntoMessages) {
  Outbox outbox;
  for (size_t i = 0; i < kMaxPointsPerMessage + 1; ++i) outbox.AddPoint(kLease, Point(0.5));
  auto due = outbox.Due(Millis(0));
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(std::get<Progress>(due[0]).points.size(), kMaxPointsPerMessage);
  EXPECT_EQ(std::get<Progress>(due[1]).points.size(), 1u);
}

TEST(OutboxTest, PointsAndSnapshotLeaveBeforeTheEnd) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(0.9));
  outbox.Due(Millis(0));
  outbox.AddEnd(kLease, StepFinished{kLease, DigestOf("a"), {}, 5});
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("s")});
  outbox.AddPoint(kLease, Point(1));
  EXPECT_EQ(TypesOf(outbox.Due(Millis(1))), (Types{"progress", "snapshot_taken", "step_finished"}));
}

TEST(OutboxTest, ANewerSnapshotReplacesTheOneThatWaits) {
  Outbox outbox;
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("old")});
  outbox.Due(Millis(0));
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("new")});
  auto due = outbox.Due(Millis(1));
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(std::get<SnapshotTaken>(due[0]).blob, DigestOf("new"));
  outbox.Acknowledge({kLease, "snapshot_taken", 2});
  EXPECT_TRUE(outbox.Due(Millis(9000)).empty());
}

TEST(OutboxTest, TheAckOfAnOlderSnapshotLeavesTheNewerOne) {
  Outbox outbox;
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("old")});
  outbox.Due(Millis(0));
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("new")});
  outbox.Due(Millis(1));
  outbox.Acknowledge({kLease, "snapshot_taken", 1});
  EXPECT_EQ(TypesOf(outbox.Due(Millis(1001))), Types{"snapshot_taken"});
}

TEST(OutboxTest, EverythingIsDueAgainAfterAWelcome) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(0.1));
  outbox.AddSnapshot({.lease = kLease, .blob = DigestOf("s")});
  outbox.AddEnd(kOther, StepFinished{kOther, DigestOf("a"), {}, 5});
  EXPECT_EQ(outbox.Due(Millis(0)).size(), 3u);
  outbox.SendAllAgain();
  EXPECT_EQ(TypesOf(outbox.Due(Millis(1))), (Types{"progress", "snapshot_taken", "step_finished"}));
}

TEST(OutboxTest, AForgottenLeaseIsSilent) {
  Outbox outbox;
  outbox.AddPoint(kLease, Point(0.1));
  outbox.AddEnd(kLease, Released{kLease, {}, {}, 0});
  outbox.Forget(kLease);
  EXPECT_TRUE(outbox.empty());
  EXPECT_TRUE(outbox.Due(Millis(0)).empty());
}

}  // namespace
}  // namespace pare::worker
