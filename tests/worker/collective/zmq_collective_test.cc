// What is of sockets alone: the rendezvous, strangers, processes that are killed or stand still.
#include "worker/collective/zmq_collective.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "common/transport.h"

namespace pare::collective {
namespace {

std::unique_ptr<ZmqCollective> Open(GangOptions options) {
  auto opened = ZmqCollective::Open(std::move(options));
  EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : opened.error().message);
  return *std::move(opened);
}

// One shard per rank, filled with rank + 1.
Result<float> SumOne(ZmqCollective& rank) {
  std::vector<float> buffer(100, static_cast<float>(rank.rank() + 1)), total(100);
  std::vector<std::span<float>> own = {buffer};
  TRY(rank.SumShards(own, rank.ranks(), total, {}));
  return total[99];
}

struct Pair {
  std::unique_ptr<ZmqCollective> root = Open({.gang = "pair", .rank = 0, .ranks = 2});
  std::unique_ptr<ZmqCollective> other = Open({.gang = "pair", .rank = 1, .ranks = 2});
  std::vector<std::string> endpoints() const { return {root->endpoint(), other->endpoint()}; }
  // What both learn of each other's states.
  std::pair<bool, bool> Join(const std::string& a, const std::string& b) {
    bool second = false;
    std::thread thread([&] { second = *other->Join(endpoints(), b); });
    bool first = *root->Join(endpoints(), a);
    thread.join();
    return {first, second};
  }
  void ExpectSum() {
    std::thread thread([&] { EXPECT_EQ(*SumOne(*other), 3.0f); });
    EXPECT_EQ(*SumOne(*root), 3.0f);
    thread.join();
  }
};

TEST(ZmqCollectiveTest, TellsWhetherAllRanksNameTheSameState) {
  EXPECT_EQ(Pair().Join("a", "a"), std::pair(true, true));
  EXPECT_EQ(Pair().Join("a", "b"), std::pair(false, false));
}

TEST(ZmqCollectiveTest, DoesNotWaitForeverForARankThatNeverComes) {
  for (int rank : {0, 1}) {
    auto root = Open({.gang = "late", .rank = 0, .ranks = 2});
    auto here = rank == 0 ? std::move(root) : Open({.gang = "late", .rank = 1, .ranks = 2, .patience = Millis(200)});
    if (rank == 0) here = Open({.gang = "late", .rank = 0, .ranks = 2, .patience = Millis(200)});
    auto joined = here->Join({rank == 0 ? here->endpoint() : root->endpoint(), ""}, "");
    ASSERT_FALSE(joined.ok());
    EXPECT_EQ(joined.error().code, ErrorCode::kUnreachable);
  }
}

TEST(ZmqCollectiveTest, WaitingEndsWhenItIsInterrupted) {
  int asked = 0;
  auto root = Open({.gang = "stop", .rank = 0, .ranks = 2, .interrupted = [&] { return ++asked == 3; }});
  auto joined = root->Join({root->endpoint(), ""}, "");
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::kStopped);
}

TEST(ZmqCollectiveTest, ListensOnlyToThisHostUnlessOthersAreToReachIt) {
  EXPECT_EQ(Open({.gang = "a", .ranks = 2})->endpoint().rfind("tcp://127.0.0.1:", 0), 0u);
  EXPECT_EQ(Open({.gang = "a", .ranks = 2, .host = "localhost"})->endpoint().rfind("tcp://127.0.0.1:", 0), 0u);
  EXPECT_EQ(Open({.gang = "a", .ranks = 2, .host = "worker7"})->endpoint().rfind("tcp://worker7:", 0), 0u);
}

TEST(ZmqCollectiveTest, StrangersAndOtherGangsDoNotCount) {
  Pair pair;
  auto other = Open({.gang = "another", .rank = 1, .ranks = 2, .patience = Millis(300)});
  auto stranger = *ConnectZmq(pair.root->endpoint());
  stranger->Send("rubbish");
  stranger->Send(R"({"gang":"pair","rank":9,"type":"hello"})");
  EXPECT_EQ(other->Join(pair.endpoints(), "").error().code, ErrorCode::kUnreachable);
  EXPECT_EQ(pair.Join("", ""), std::pair(true, true));
  // Of this gang, but neither from the rank's own connection nor of this round.
  stranger->Send(R"({"gang":"pair","rank":1,"type":"sum","round":1})");
  pair.ExpectSum();
  pair.ExpectSum();
}

TEST(ZmqCollectiveTest, RefusesGradientsOfAnotherSize) {
  Pair pair;
  pair.Join("", "");
  std::thread thread([&] {
    std::vector<float> buffer(7), total(7);
    std::vector<std::span<float>> own = {buffer};
    (void)pair.other->SumShards(own, 2, total, {});
  });
  EXPECT_EQ(SumOne(*pair.root).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(SumOne(*pair.root).error().code, ErrorCode::kCorrupt) << "a broken gang stays broken";
  pair.root.reset();
  thread.join();
}

TEST(ZmqCollectiveTest, TheLastTotalArrivesThoughRankZeroLeavesAtOnce) {
  for (int repeat = 0; repeat < 30; ++repeat) {
    Pair pair;
    pair.Join("", "");
    std::vector<float> buffer(100'000, 1.0f), total(100'000);
    std::thread thread([&] {
      std::vector<std::span<float>> own = {buffer};
      Status summed = pair.other->SumShards(own, 2, total, {});
      EXPECT_TRUE(summed.ok()) << (summed.ok() ? "" : summed.error().message);
    });
    std::vector<float> at_root(100'000, 2.0f), total_at_root(100'000);
    std::vector<std::span<float>> own = {at_root};
    EXPECT_TRUE(pair.root->SumShards(own, 2, total_at_root, {}).ok());
    pair.root.reset();
    thread.join();
    EXPECT_EQ(total, total_at_root);
  }
}

TEST(ZmqCollectiveTest, ARankSendsWhatItCannotAddAlone) {
  Pair pair;
  pair.Join("", "");
  auto sum = [](ZmqCollective& rank) {
    std::vector<float> buffer(1000), total(1000);
    std::vector<std::span<float>> own(4, std::span(buffer));
    EXPECT_TRUE(rank.SumShards(own, 8, total, {}).ok());
  };
  int64_t before = pair.other->bytes_sent();
  std::thread thread([&] { sum(*pair.other); });
  sum(*pair.root);
  thread.join();
  EXPECT_NEAR(static_cast<double>(pair.other->bytes_sent() - before), 4000, 200) << "four shards are one sum";
}

// A rank in a process of its own. It meets the parent, and sums whenever a byte comes through the pipe.
class Child {
 public:
  explicit Child(int rank) {
    EXPECT_EQ(pipe(endpoint_), 0);
    EXPECT_EQ(pipe(go_), 0);
    pid_ = fork();
    if (pid_ == 0) Run(rank);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    for (int fd : {endpoint_[0], endpoint_[1], go_[0], go_[1]}) close(fd);
  }
  // Rank 0 has an endpoint to tell, the others are told.
  std::string endpoint() const { return Read(endpoint_[0]); }
  void Tell(const std::string& endpoint) const { Write(go_[1], endpoint); }
  void Go() const { Write(go_[1], "go"); }
  void Signal(int signal) const { EXPECT_EQ(kill(pid_, signal), 0); }
  void Stop() const {
    Signal(SIGSTOP);
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, WUNTRACED), pid_);
    EXPECT_TRUE(WIFSTOPPED(status));
  }

 private:
  static std::string Read(int fd) {
    char text[200];
    ssize_t n = read(fd, text, sizeof text);
    return {text, static_cast<size_t>(std::max<ssize_t>(n, 0))};
  }
  static void Write(int fd, const std::string& text) { EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size())); }
  [[noreturn]] void Run(int rank) {
    auto own = Open({.gang = "family", .rank = rank, .ranks = 2});
    if (rank == 0) Write(endpoint_[1], own->endpoint());
    bool met = own->Join({rank == 0 ? own->endpoint() : Read(go_[0]), ""}, "").ok();
    while (met && !Read(go_[0]).empty()) met = SumOne(*own).ok();
    _exit(0);
  }

  int endpoint_[2], go_[2];
  pid_t pid_ = 0;
};

// A pair of which the rank that is not `child`'s is here.
std::unique_ptr<ZmqCollective> Meet(const Child& child, int child_rank, std::function<bool()> interrupted) {
  auto here = Open({.gang = "family", .rank = 1 - child_rank, .ranks = 2, .interrupted = std::move(interrupted)});
  if (child_rank == 1) child.Tell(here->endpoint());
  EXPECT_TRUE(here->Join({child_rank == 1 ? here->endpoint() : child.endpoint(), ""}, "").ok());
  return here;
}

class ZmqProcessTest : public testing::TestWithParam<int> {};

TEST_P(ZmqProcessTest, AKilledProcessIsNoticedWhileItIsAwaited) {
  Child child(GetParam());
  int asked = 0;
  bool met = false;
  auto here = Meet(child, GetParam(), [&] {
    if (met && ++asked == 2) child.Signal(SIGKILL);
    return asked > 50;  // five seconds
  });
  met = true;
  Result<float> sum = SumOne(*here);
  ASSERT_FALSE(sum.ok());
  EXPECT_EQ(sum.error().code, ErrorCode::kUnreachable) << sum.error().message;
}

TEST_P(ZmqProcessTest, AProcessThatStandsStillForAWhileIsWaitedFor) {
  Child child(GetParam());
  int asked = 0;
  auto here = Meet(child, GetParam(), [&] {
    if (++asked == 15) child.Signal(SIGCONT);
    return asked > 100;
  });
  child.Stop();
  asked = 0;
  child.Go();
  Result<float> sum = SumOne(*here);
  ASSERT_TRUE(sum.ok()) << sum.error().message;
  EXPECT_EQ(*sum, 3.0f);
  EXPECT_GE(asked, 15);
}

INSTANTIATE_TEST_SUITE_P(Rank, ZmqProcessTest, testing::Values(0, 1));

}  // namespace
}  // namespace pare::collective
