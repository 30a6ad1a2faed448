// Steps that several runners share: the artifact of one runner alone, whoever leaves on the way.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "tests/worker/runner/fixture.h"
#include "worker/runner/training.h"

namespace pare::runner {
namespace {

// What agents and coordinator do for a gang.
class Rendezvous {
 public:
  explicit Rendezvous(size_t ranks) : endpoints_(ranks) {}
  void Add(size_t rank, const std::string& endpoint) {
    std::lock_guard lock(mutex_);
    endpoints_[rank] = endpoint;
    ++here_;
    changed_.notify_all();
  }
  std::optional<std::vector<std::string>> Wait(Millis wait) {
    std::unique_lock lock(mutex_);
    bool all = changed_.wait_for(lock, wait, [&] { return here_ == endpoints_.size(); });
    return all ? std::optional(endpoints_) : std::nullopt;
  }
  std::atomic<int64_t> batches = 0;  // done by rank 0

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> endpoints_;
  size_t here_ = 0;
};

class GangHooks : public RecordingHooks {
 public:
  GangHooks(Rendezvous& rendezvous, size_t rank) : rendezvous_(rendezvous), rank_(rank) {}
  void Joins(const std::string& endpoint) override { rendezvous_.Add(rank_, endpoint); }
  std::optional<std::vector<std::string>> Joined(Millis wait) override { return rendezvous_.Wait(wait); }
  void Progress(Json values) override {
    ++rendezvous_.batches;
    RecordingHooks::Progress(std::move(values));
  }
  // How often it is asked depends on the waiting: what the gang has done does not.
  std::optional<StopRequest> StopRequested() override {
    return rendezvous_.batches >= stop_after_batches ? std::optional(StopRequest{keep}) : RecordingHooks::StopRequested();
  }
  int64_t stop_after_batches = INT64_MAX;

 private:
  Rendezvous& rendezvous_;
  size_t rank_;
};

struct Outcome {
  worker::RunnerEvent event;
  size_t progress = 0, snapshots = 0;
};

class GangTest : public RunnerTest {
 protected:
  // Every rank in a thread. `prepare` may change what a rank is given and does.
  std::vector<Outcome> RunGang(const worker::Assignment& assignment, size_t ranks,
                               const std::function<void(size_t, worker::Assignment&, GangHooks&)>& prepare = {}) {
    Rendezvous rendezvous(ranks);
    std::vector<Outcome> outcomes(ranks);
    std::vector<std::thread> threads;
    for (size_t r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        worker::Assignment own = assignment;
        own.gang = {static_cast<int>(r), static_cast<int>(ranks)};
        GangHooks hooks(rendezvous, r);
        if (prepare) prepare(r, own, hooks);
        TickingClock clock;
        InputCache cache(*blobs_);
        Environment environment{*blobs_, cache, clock, 1, "cpu"};
        environment.firsts_patience = patience_;
        outcomes[r].event = ExecuteStep(own, environment, hooks);
        outcomes[r].progress = hooks.progress.size();
        outcomes[r].snapshots = hooks.snapshots.size();
      });
    }
    for (std::thread& t : threads) t.join();
    return outcomes;
  }
  Millis patience_{0};
  void ExpectArtifactOfOneAlone(const worker::Assignment& assignment, std::initializer_list<size_t> sizes = {2}) {
    Digest alone = Artifact(Run(assignment));
    for (size_t size : sizes) {
      for (const Outcome& outcome : RunGang(assignment, size)) EXPECT_EQ(Artifact(outcome.event), alone) << "a gang of " << size;
    }
  }
  // Three shards of a batch: neither two nor four ranks have equal parts.
  static Json Shared(Json train) {
    train["shards"] = 3;
    return train;
  }
  worker::Assignment Retrain(Json train, double sparsity) {
    Digest pruned = Artifact(Run(Make("prune", PruneParams(sparsity), {{"model", init_}})));
    return Make("retrain", Range(std::move(train), 1, 3, 7), {{"model", pruned}});
  }
  worker::Assignment Train() { return Make("train", Range(Shared(TrainParams(3)), 0, 3, 0), {{"model", init_}}); }
};

TEST_F(GangTest, GivesTheArtifactOfOneRunnerAlone) { ExpectArtifactOfOneAlone(Train(), {2, 3, 4}); }

TEST_F(GangTest, GivesItUnderAMaskWhoseGradientsAreNotExchanged) {
  Json train = Shared(TrainParams(3));
  train["clip_norm"] = 0.0;
  ExpectArtifactOfOneAlone(Retrain(train, 0.7), {2, 3});
  train["clip_norm"] = 0.05;  // below the norm, which is that of all gradients
  ExpectArtifactOfOneAlone(Retrain(train, 0.7), {2});
}

TEST_F(GangTest, GivesItWithATeacherOrAdapters) {
  Digest teacher = Artifact(Run(Make("train", Range(TrainParams(2), 0, 2, 0), {{"model", init_}}, 5)));
  Json distill = Range(Shared(TrainParams(2)), 0, 2, 3);
  distill.erase("rule");
  distill.update({{"temperature", 2.0}, {"hardness", 0.5}, {"match", {{"fc1", "fc1"}}}, {"match_weight", 0.5}});
  ExpectArtifactOfOneAlone(Make("distill", distill, {{"model", init_}, {"teacher", teacher}}), {2, 3});
  Json lora = Range(Shared(TrainParams(2)), 0, 2, 0);
  lora.update({{"tensors", {"fc1.weight", "fc2.weight"}}, {"rank", 2}, {"alpha", 4.0}, {"merge", false}});
  ExpectArtifactOfOneAlone(Make("lora", lora, {{"model", init_}}), {2, 3});
}

// The first of two ranks, of which the second never owns a shard. Notes how much is exchanged.
class NotingCollective : public collective::Collective {
 public:
  int rank() const override { return 0; }
  int ranks() const override { return 2; }
  std::pair<int, int> Owned(int shards) const override { return {0, shards}; }
  Status SumShards(std::span<const std::span<float>> shards, int total_shards, std::span<float> total, std::span<std::byte> records) override {
    lengths.insert(total.size());
    return local_->SumShards(shards, total_shards, total, records);
  }
  std::set<size_t> lengths;

 private:
  std::unique_ptr<collective::Collective> local_ = collective::NewLocalCollective();
};

TEST_F(GangTest, ExchangesWhatSurvivesUnlessTheNormReadsTheRest) {
  storage::Checkpoint pruned = CheckpointOf(Artifact(Run(Make("prune", PruneParams(0.7), {{"model", init_}}))));
  size_t removed = 0;
  for (const auto& [name, mask] : pruned.masks) removed += static_cast<size_t>(mask.size() - mask.kept());
  model::GraphInfo info = *model::Analyze(graph_);
  auto lengths = [&](double clip_norm) {
    Json train = Shared(TrainParams(1));
    train["clip_norm"] = clip_norm;
    auto gang = std::make_shared<NotingCollective>();
    TrainJob job{graph_, info, pruned.tensors, pruned.masks, dataset_, data_, *TrainOptionsFromJson({{"train", train}}), {0, 1, 0}};
    job.gang = gang;
    SnapshotWriter snapshots(*blobs_);
    std::optional<StoredSnapshot> stopped;
    RecordingHooks hooks;
    EXPECT_TRUE(runner::Train(std::move(job), std::nullopt, {hooks, snapshots, clock_, stopped}).ok());
    return gang->lengths;
  };
  std::set<size_t> all = lengths(5.0), some = lengths(0.0);
  ASSERT_EQ(all.size(), 1u);
  ASSERT_GT(removed, 100u);
  EXPECT_EQ(some, std::set<size_t>{*all.begin() - removed});
}

TEST_F(GangTest, GivesItWhilePruningGradually) {
  for (const char* criterion : {"magnitude_l1", "movement", "taylor", "fisher"}) {
    Json params = GradualParams(3);
    params["criterion"] = criterion;
    params["train"] = Shared(params["train"]);
    params["train"]["clip_norm"] = 0.0;
    if (std::string(criterion) == "taylor" || std::string(criterion) == "fisher") params["calibration_samples"] = 20;
    ExpectArtifactOfOneAlone(Make("prune", params, {{"model", init_}}), {2});
  }
}

TEST_F(GangTest, OnlyTheFirstRankReportsAndTakesSnapshots) {
  worker::Assignment assignment = Train();
  assignment.hints = {{"snapshot_every_epochs", 1}};
  std::vector<Outcome> outcomes = RunGang(assignment, 3);
  EXPECT_EQ(outcomes[0].progress, static_cast<size_t>(3 * kBatches));
  EXPECT_GT(outcomes[0].snapshots, 0u);
  for (size_t r : {1, 2}) EXPECT_EQ(outcomes[r].progress + outcomes[r].snapshots, 0u);
}

TEST_F(GangTest, WhoIsLeftBehindKeepsASnapshotFromWhichOneAloneGoesOn) {
  Json params = GradualParams(3);
  params["train"] = Shared(params["train"]);
  for (const worker::Assignment& assignment : {Train(), Make("prune", params, {{"model", init_}})}) {
    Digest whole = Artifact(Run(assignment));
    for (size_t leaves : {0, 1, 2}) {
      std::vector<Outcome> outcomes = RunGang(assignment, 3, [&](size_t rank, worker::Assignment&, GangHooks& hooks) {
        if (rank != leaves) return;
        hooks.stop_after_batches = 9 + static_cast<int64_t>(leaves);
        hooks.keep = false;
      });
      for (size_t r = 0; r < outcomes.size(); ++r) {
        const auto* stopped = std::get_if<worker::StepStopped>(&outcomes[r].event);
        ASSERT_NE(stopped, nullptr) << Canonical(worker::ToJson(outcomes[r].event));
        ASSERT_EQ(stopped->snapshot.is_none(), r == leaves);
        if (r == leaves) continue;
        worker::Assignment rest = assignment;
        rest.snapshot = stopped->snapshot;
        RecordingHooks hooks;
        EXPECT_EQ(Artifact(Run(rest, 1, hooks)), whole) << r << " after " << leaves << " left";
        EXPECT_LE(hooks.boundaries, 3 * kBatches - 8) << "work was done twice";
      }
    }
  }
}

TEST_F(GangTest, AGangContinuesTheSnapshotOfAnother) {
  worker::Assignment assignment = Train();
  Digest whole = Artifact(Run(assignment));
  std::vector<Outcome> outcomes = RunGang(assignment, 3, [](size_t, worker::Assignment&, GangHooks& hooks) { hooks.stop_after_batches = 8; });
  for (const Outcome& outcome : outcomes) {
    worker::Assignment rest = assignment;
    rest.snapshot = std::get<worker::StepStopped>(outcome.event).snapshot;
    ASSERT_FALSE(rest.snapshot.is_none());
    EXPECT_EQ(Artifact(RunGang(rest, 2)[1].event), whole);
  }
}

TEST_F(GangTest, DoesNotMeetIfOneCannotReadTheSnapshot) {
  worker::Assignment assignment = Train();
  RecordingHooks stops;
  stops.stop_after = 4;
  Digest snapshot = std::get<worker::StepStopped>(Run(assignment, 1, stops)).snapshot;
  for (const Outcome& outcome : RunGang(assignment, 2, [&](size_t rank, worker::Assignment& own, GangHooks&) {
         own.snapshot = rank == 0 ? snapshot : DigestOf(std::string_view("not stored"));
       })) {
    const auto* ended = std::get_if<worker::StepStopped>(&outcome.event);
    ASSERT_NE(ended, nullptr) << Canonical(worker::ToJson(outcome.event));
    EXPECT_TRUE(ended->snapshot.is_none());
  }
}

// One stores the result; the others are told when it is there.
TEST_F(GangTest, OnlyTheFirstOneFinishesAStepThatIsNotGivenUp) {
  patience_ = Millis(1'000'000'000);
  std::vector<Outcome> outcomes = RunGang(Train(), 3, [](size_t rank, worker::Assignment&, GangHooks& hooks) {
    if (rank == 0) return;
    hooks.stop_after_batches = 3 * kBatches;
    hooks.keep = rank == 2;  // this one takes the first for lost
  });
  EXPECT_TRUE(std::holds_alternative<worker::StepDone>(outcomes[0].event));
  EXPECT_TRUE(std::holds_alternative<worker::StepStopped>(outcomes[1].event));
  ASSERT_TRUE(std::holds_alternative<worker::StepDone>(outcomes[2].event));
  EXPECT_EQ(Artifact(outcomes[2].event), Artifact(outcomes[0].event));
}

TEST_F(GangTest, WaitingForTheOthersEndsWithAStop) {
  Rendezvous rendezvous(2);
  GangHooks hooks(rendezvous, 0);
  hooks.stop_after = 3;
  worker::Assignment assignment = Train();
  assignment.gang = {0, 2};
  worker::RunnerEvent event = Run(assignment, 1, hooks);
  ASSERT_TRUE(std::holds_alternative<worker::StepStopped>(event)) << Canonical(worker::ToJson(event));
  EXPECT_TRUE(std::get<worker::StepStopped>(event).snapshot.is_none());
  EXPECT_EQ(hooks.boundaries, 4);
}

TEST_F(GangTest, AStepThatDoesNotTrainRunsAloneOnEveryRank) {
  worker::Assignment assignment = Make("prune", PruneParams(0.5), {{"model", init_}});
  Digest alone = Artifact(Run(assignment));
  assignment.gang = {1, 2};
  EXPECT_EQ(Artifact(Run(assignment)), alone);
}

}  // namespace
}  // namespace pare::runner
