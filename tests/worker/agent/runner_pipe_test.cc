// The values on the runner pipe and the channel that carries them.
#include "worker/runner_pipe.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/random.h"

namespace pare::worker {
namespace {

constexpr Millis kLong{10'000};

struct Ends {
  UniqueFd agent, runner;
};
Ends MakePair() {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}
void Write(const UniqueFd& fd, std::string_view bytes) {
  ASSERT_EQ(write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

// ---- values ----

Digest AnyDigest() {
  std::array<uint8_t, 32> bytes;
  for (uint8_t& byte : bytes) byte = *rc::gen::arbitrary<uint8_t>();
  return Digest(bytes);
}
Digest MaybeDigest() { return *rc::gen::arbitrary<bool>() ? AnyDigest() : Digest(); }
int64_t AnyCount() { return *rc::gen::inRange<int64_t>(0, INT64_MAX); }

RC_GTEST_PROP(RunnerPipeTest, AnAssignmentSurvivesTheTrip, ()) {
  Assignment a;
  a.key = StepKey(AnyDigest().bytes());
  a.lease_epoch = AnyCount();
  a.attempt = *rc::gen::inRange(0, INT32_MAX);
  a.spec = {{"kind", "train"}, {"seed", *rc::gen::arbitrary<uint64_t>()}};
  for (int n = *rc::gen::inRange(0, 4); n > 0; --n) a.inputs[std::to_string(n)] = AnyDigest();
  a.data = *rc::gen::arbitrary<bool>() ? Json{{"path", "x"}} : Json();
  a.weights = MaybeDigest();
  a.hints = {{"h", *rc::gen::arbitrary<double>()}};
  a.snapshot = MaybeDigest();
  Json json = ToJson(a);
  RC_ASSERT(ToText(a, a.spec, a.data, a.hints).text() == Canonical(json));
  Result<Assignment> read = AssignmentFromJson(*ParseJson(Canonical(json), "test"));
  RC_ASSERT(read.ok());
  RC_ASSERT(ToJson(*read) == json);
  RC_ASSERT(read->key == a.key && read->inputs == a.inputs && read->snapshot == a.snapshot && read->weights == a.weights);
  RC_ASSERT(read->lease_epoch == a.lease_epoch && read->attempt == a.attempt && read->spec == a.spec && read->data == a.data);
  for (const auto& [field, unused] : json.items()) {
    Json without = json;
    without.erase(field);
    RC_ASSERT(!AssignmentFromJson(without).ok());
  }
}

TEST(RunnerPipeTest, EveryEventSurvivesTheTrip) {
  const std::vector<RunnerEvent> events = {RunnerReady{"cpu"},
                                           StepProgress{{{"epoch", 1.5}}},
                                           StepSnapshot{DigestOf("s"), {{"batch", 7}}},
                                           StepDone{DigestOf("a"), {{"kind", "x"}}, 12},
                                           StepFailed{"diverged", "NaN", 13},
                                           StepStopped{DigestOf("s"), {{"batch", 7}}, 14},
                                           StepStopped{},
                                           RunnerLost{"gone", true}};
  for (const RunnerEvent& event : events) {
    Result<RunnerEvent> read = RunnerEventFromJson(ToJson(event));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->index(), event.index());
    EXPECT_EQ(ToJson(*read), ToJson(event));
  }
  auto done = std::get<StepDone>(*RunnerEventFromJson(ToJson(events[3])));
  EXPECT_EQ(done.artifact, DigestOf("a"));
  EXPECT_EQ(done.busy_ms, 12);
}

TEST(RunnerPipeTest, EventsThatDoNotFitAreRefused) {
  for (const char* text : {R"({})", R"({"type": "dance"})", R"({"type": "done", "busy_ms": 1, "manifest": {}})",
                           R"({"type": "done", "artifact": "", "busy_ms": 1, "manifest": {}})",
                           R"({"type": "progress", "values": 3})", R"({"type": "stopped", "snapshot": "", "position": null})",
                           R"({"type": "failed", "error_class": "x", "message": "y", "busy_ms": -1})", R"([])", R"("done")"}) {
    EXPECT_FALSE(RunnerEventFromJson(Json::parse(text)).ok()) << text;
  }
}

// ---- the pipe ----

TEST(RunnerPipeTest, CommandsArriveInOrder) {
  Ends ends = MakePair();
  LineChannel agent(std::move(ends.agent));
  RunnerPipe pipe(std::move(ends.runner));
  Assignment assignment;
  assignment.key = StepKey(std::array<uint8_t, 32>{9});
  for (const RunnerCommand& command : {RunnerCommand(StartStep{assignment}), RunnerCommand(StopStep{false}), RunnerCommand(ExitRunner{})}) {
    ASSERT_TRUE(agent.Send(Canonical(ToJson(command))).ok());
  }
  EXPECT_EQ(std::get<StartStep>(**pipe.Receive(kLong)).assignment.key, assignment.key);
  EXPECT_FALSE(std::get<StopStep>(**pipe.Receive(Millis(0))).keep);
  EXPECT_TRUE(std::holds_alternative<ExitRunner>(**pipe.Receive(Millis(0))));
  EXPECT_EQ(*pipe.Receive(Millis(0)), std::nullopt);
}

TEST(RunnerPipeTest, TheEndOfTheAgentIsUnreachable) {
  Ends ends = MakePair();
  RunnerPipe pipe(std::move(ends.runner));
  ends.agent.reset();
  EXPECT_EQ(pipe.Receive(kLong).error().code, ErrorCode::kUnreachable);
  EXPECT_EQ(pipe.Send(RunnerReady{"cpu"}).error().code, ErrorCode::kUnreachable);
}

TEST(RunnerPipeTest, ACommandThatDoesNotFitIsInvalid) {
  Ends ends = MakePair();
  RunnerPipe pipe(std::move(ends.runner));
  Write(ends.agent, "not json\n{\"type\": \"stop\"}\n");
  EXPECT_EQ(pipe.Receive(kLong).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(pipe.Receive(kLong).error().code, ErrorCode::kInvalid);
}

TEST(LineChannelTest, LinesComeOutWholeHoweverTheyArrive) {
  RandomStream random(3, RandomPurpose::kTest);
  Ends ends = MakePair();
  LineChannel channel(std::move(ends.runner));
  std::string bytes;
  std::vector<std::string> lines, received;
  for (int i = 0; i < 200; ++i) {
    lines.push_back(std::string(random.Below(50), static_cast<char>('a' + i % 26)));
    bytes += lines.back() + "\n";
  }
  for (size_t at = 0; at < bytes.size();) {
    size_t n = std::min<size_t>(bytes.size() - at, 1 + random.Below(30));
    Write(ends.agent, bytes.substr(at, n));
    at += n;
    while (auto line = *channel.Receive(Millis(0))) received.push_back(*line);
  }
  EXPECT_EQ(received, lines);
}

TEST(LineChannelTest, WhatArrivedBeforeTheEndIsReturnedBeforeTheError) {
  Ends ends = MakePair();
  LineChannel channel(std::move(ends.runner));
  Write(ends.agent, "one\ntwo\nhalf a line");
  ends.agent.reset();
  EXPECT_EQ(*channel.Receive(kLong), "one");
  EXPECT_EQ(*channel.Receive(kLong), "two");
  EXPECT_EQ(channel.Receive(kLong).error().code, ErrorCode::kUnreachable);
}

TEST(LineChannelTest, ALineWithoutEndIsRefused) {
  Ends ends = MakePair();
  LineChannel sender(std::move(ends.agent)), receiver(std::move(ends.runner));
  ASSERT_TRUE(sender.Send(std::string(kMaxLineBytes + (1 << 20), 'x')).ok());
  for (;;) {
    Result<std::optional<std::string>> line = receiver.Receive(Millis(0));
    if (!line.ok()) {
      EXPECT_EQ(line.error().code, ErrorCode::kInvalid);
      break;
    }
    ASSERT_FALSE(line->has_value());
    ASSERT_TRUE(sender.Flush(Millis(0)).ok());
  }
}

TEST(LineChannelTest, WhatTheSystemDoesNotTakeIsKeptAndSentLater) {
  Ends ends = MakePair();
  LineChannel sender(std::move(ends.agent)), receiver(std::move(ends.runner));
  std::string line(4 << 20, 'x');
  ASSERT_TRUE(sender.Send(line).ok());
  EXPECT_TRUE(sender.has_unsent());
  std::optional<std::string> received;
  while (!received) {
    received = *receiver.Receive(Millis(0));
    ASSERT_TRUE(sender.Flush(Millis(0)).ok());
  }
  EXPECT_TRUE(*received == line);
  EXPECT_FALSE(sender.has_unsent());
}

}  // namespace
}  // namespace pare::worker
