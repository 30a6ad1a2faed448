#include "tests/simulation/simulator.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "recipes/recipe.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/processes.h"

namespace pare::simulation {
namespace {

constexpr int64_t kMostTurns = 2'000'000;  // of the coordinator in one simulation

data::DataInfo SimulatedData() {
  data::DataInfo info;
  info.fingerprint = DigestOf(std::string_view("data"));
  info.sample_shape = {1, 28, 28};
  info.dtype = "U8";
  info.classes = 10;
  info.train_count = 60'000;
  info.test_count = 10'000;
  info.mean = {0.3};
  info.deviation = {0.35};
  info.request.dataset = "fashion-mnist";
  return info;
}

class Simulator {
 public:
  Simulator(uint64_t seed, bool trace)
      : scenario_(ScenarioOf(seed)), trace_(trace), random_(seed, RandomPurpose::kTest, 3), network_(timeline_, scenario_), index_(disk_), clock_(timeline_), blobs_(disk_, clock_), oracle_(scenario_, index_, blobs_) {
    network_.delivered = [this](const PeerId& peer, bool to_server, std::string_view bytes) {
      history_.Update(std::to_string(timeline_.now().count()) + (to_server ? ">" : "<") + peer + " ");
      history_.Update(bytes);
      if (trace_) Trace((to_server ? peer + " → coordinator " : "coordinator → " + peer + " ") + std::string(bytes.substr(0, 400)));
      oracle_.Arrives(peer, to_server, bytes, coordinator_ ? &coordinator_->state() : nullptr);
    };
    blobs_.collecting = [this](const storage::GcPlan& plan) {
      Say("blobs are collected: " + std::to_string(plan.removals.size()) + " of " + std::to_string(plan.artifacts.size()) + " artifacts and others");
      oracle_.Collecting(plan, coordinator_->state());
    };
    network_.server_sends = [this](const PeerId& peer, std::string_view bytes) { oracle_.CoordinatorSends(peer, bytes, coordinator_->state()); };
    client_ = std::make_unique<ClientProcess>(timeline_, network_, Duration(0.2));
  }

  Outcome Run() {
    Plan();
    while (oracle_.failure().empty() && !over_) {
      if (!timeline_.Step()) oracle_.Fail("nothing happens any more");
      if (timeline_.now() > give_up_) oracle_.Fail("jobs do not end: " + Stuck());
      if (outcome_.turns > kMostTurns) oracle_.Fail("the coordinator turns without end");
    }
    outcome_.failure = oracle_.failure();
    outcome_.history = Digest(history_.Finish());
    outcome_.commits = index_.commits();
    outcome_.network = network_.counts();
    outcome_.collected = blobs_.removed();
    outcome_.gangs = gangs_.begun();
    outcome_.broken_gangs = gangs_.broken();
    return std::move(outcome_);
  }

 private:
  // ---- the plan of the seed ----

  Millis Duration(double minutes) const { return Millis(static_cast<int64_t>(minutes * 60'000 * scenario_.scale)); }
  Millis Upto(Millis most) { return Millis(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(std::max<int64_t>(1, most.count()))))); }

  // `count` events at random times until the faults end.
  template <typename F>
  void Scatter(int count, F event) {
    for (int i = 0; i < count; ++i) timeline_.At(Upto(scenario_.faults_until), event);
  }

  void Plan() {
    timeline_.At(Millis(0), [this] { StartCoordinator(); });
    for (int i = 0; i < scenario_.workers; ++i) {
      workers_.emplace_back();
      timeline_.At(Upto(Duration(1)), [this, i] { StartWorker(i); });
    }
    for (const PlannedJob& job : scenario_.jobs) {
      auto recipe = recipes::Recipe::Parse(job.recipe, "recipe.yaml");
      if (!recipe.ok()) return oracle_.Fail(recipe.error().message);
      auto resolved = recipes::Resolve(*recipe, SimulatedData(), Digest());
      if (!resolved.ok()) return oracle_.Fail(resolved.error().message);
      oracle_.Expect(*resolved);
      for (const auto& step : recipes::FullPlan(*resolved)) {
        Work work = WorkOf(step.key, recipes::ToJson(step.spec), scenario_.scale);
        work_ += step.local ? Millis(0) : work.epoch_time * work.epochs;
      }
      timeline_.At(job.submitted, [this, &job] { Submit(job); });
    }
    Scatter(scenario_.partitions, [this] {
      Millis until = timeline_.now() + Upto(Duration(20));
      if (AgentProcess* worker = AnyWorker()) Say("cut off " + worker->name()), network_.CutOff(worker->name(), until);
    });
    Scatter(scenario_.worker_kills, [this] { KillWorker(AnyIndex()); });
    Scatter(scenario_.worker_stops, [this] {
      if (AgentProcess* worker = AnyWorker()) Say("SIGTERM " + worker->name()), worker->Terminate();
    });
    Scatter(scenario_.runner_kills, [this] {
      AgentProcess* worker = AnyWorker();
      if (worker == nullptr) return;
      Say("kill the runner of " + worker->name());
      ++outcome_.runner_losses;
      worker->runner().Kill(random_.Below(8) == 0);
    });
    Scatter(scenario_.coordinator_kills, [this] { KillCoordinator("kill -9", true); });
    Scatter(scenario_.torn_commits, [this] { disk_.torn = random_.Below(2) == 0; });
    Scatter(scenario_.full_disks, [this] {
      Say("the disk is full");
      disk_.full = true;
      timeline_.In(Upto(Duration(10)), [this] { disk_.full = false; });
    });
    Scatter(scenario_.stalls, [this] {
      Millis until = timeline_.now() + Upto(Duration(15));
      AgentProcess* worker = random_.Below(2) == 0 ? AnyWorker() : nullptr;
      Say(worker == nullptr ? "SIGSTOP the coordinator" : "SIGSTOP " + worker->name());
      if (worker != nullptr) worker->StopUntil(until);
      else if (coordinator_) coordinator_->StopUntil(until);
    });
    Scatter(scenario_.wall_jumps, [this] { clock_.Jump(Upto(Millis(7'200'000)) - Millis(3'600'000)); });
    Scatter(scenario_.requests, [this] { RandomRequest(); });
    Scatter(scenario_.collections, [this] {
      if (random_.Below(3) == 0) disk_.torn_collection = random_.Below(2) == 0;
      client_->Ask("gc", random_.Below(2) == 0 ? Json({{"young_ms", 0}}) : Json::object(), [](const Reply&) {});
    });
    timeline_.At(scenario_.faults_until, [this] { Heal(); });
  }

  void Heal() {
    Say("everything is healed");
    healed_ = true;
    network_.Heal();
    disk_.full = false;
    disk_.torn.reset();
    disk_.torn_collection.reset();
    give_up_ = timeline_.now() + 3 * work_ + 20 * scenario_.lease_timeout + Duration(120);
    if (!coordinator_) StartCoordinator();
    Settle();
  }

  // ---- processes ----

  void StartCoordinator() {
    if (coordinator_) return;
    disk_.dead = false;
    CoordinatorProcess::Parts parts{timeline_, network_, index_, blobs_, clock_, scenario_, nullptr, nullptr, nullptr, nullptr};
    if (scenario_.sees_processes) parts.process_alive = [this](int64_t pid) { return pids_.count(pid) != 0; };
    parts.loaded = [this](const coordinator::State& state) { oracle_.CoordinatorStarted(state); };
    parts.after_turn = [this](CoordinatorProcess& process) {
      ++outcome_.turns;
      oracle_.AfterTurn(process.service());
      if (process.service().stopping()) oracle_.Fail("the coordinator ends unasked");
    };
    parts.ended = [this](const std::string& reason) { KillCoordinator(reason, reason == "killed after the transaction"); };
    auto started = CoordinatorProcess::Start(parts);
    if (!started.ok()) {
      Say("the coordinator cannot start: " + started.error().message);
      timeline_.In(Millis(5'000), [this] { StartCoordinator(); });
      return;
    }
    coordinator_ = *std::move(started);
    ++outcome_.coordinator_starts;
    Say("the coordinator starts");
  }

  void KillCoordinator(const std::string& reason, bool whole) {
    if (!coordinator_) return;
    Say("the coordinator dies: " + reason);
    oracle_.CoordinatorDied(coordinator_->state(), whole && !coordinator_->service().blocked());
    coordinator_.reset();
    timeline_.In(random_.Below(2) == 0 ? Upto(Duration(0.5)) : Upto(Duration(15)), [this] { StartCoordinator(); });
  }

  void StartWorker(int index) {
    int64_t pid = ++last_pid_;
    std::string name = std::string(kHost) + "-" + std::to_string(pid) + "-0";
    Say("worker " + name + " starts");
    ++outcome_.worker_starts;
    pids_.insert(pid);
    RunnerParts runner{timeline_, scenario_, blobs_, random_, gangs_, nullptr, [this](const std::string& what) { oracle_.Fail(what); }};
    workers_[static_cast<size_t>(index)] = {pid, std::make_unique<AgentProcess>(AgentProcess::Parts{network_, runner, [this, index] { KillWorker(index); }}, name)};
  }

  void KillWorker(int index) {
    auto& [pid, worker] = workers_[static_cast<size_t>(index)];
    if (!worker) return;
    Say("worker " + worker->name() + " dies");
    oracle_.AgentDied(worker->name());
    pids_.erase(pid);
    worker.reset();
    timeline_.In(Upto(Duration(10)), [this, index] { StartWorker(index); });
  }

  int AnyIndex() { return static_cast<int>(random_.Below(workers_.size())); }
  AgentProcess* AnyWorker() { return workers_[static_cast<size_t>(AnyIndex())].second.get(); }

  // ---- the client ----

  void Submit(const PlannedJob& job) {
    Json args = {{"recipe", job.recipe}, {"recipe_name", "recipe.yaml"}, {"data", data::ToJson(SimulatedData())}, {"user", job.user}, {"priority", job.priority}};
    std::string name = job.recipe.substr(job.recipe.find("job"), 4);
    client_->Ask("submit", std::move(args), [this, name](const Reply& reply) {
      if (!reply.ok) return oracle_.Fail("submit: " + reply.message);
      oracle_.Submitted(reply.result["job"], name);
      ids_.push_back(reply.result["job"]);
      ++answered_submits_;
    });
  }

  void RandomRequest() {
    if (ids_.empty()) return;
    static const char* const kMethods[] = {"pause", "resume", "cancel", "retry", "promote", "rollback"};
    std::string method = kMethods[random_.Below(6)], id = ids_[random_.Below(ids_.size())], model = "model" + std::to_string(random_.Below(2));
    if (method == "rollback") return client_->Ask(method, {{"name", model}}, [](const Reply&) {});
    if (method != "promote") return client_->Ask(method, {{"job", id}}, [](const Reply&) {});
    client_->Ask(method, {{"name", model}, {"job", id}, {"step", "baseline"}}, [this, model](const Reply& reply) {
      if (reply.ok) oracle_.Promoted(model, reply.result["version"].get<int64_t>());
    });
  }

  // After healing: what is paused or cancelled goes on; when every job has ended and all is quiet, the end.
  void Settle() {
    if (!coordinator_ || answered_submits_ < scenario_.jobs.size() || !client_->idle()) return timeline_.In(Duration(1), [this] { Settle(); });
    bool ended = true;
    for (const auto& [id, job] : coordinator_->state().jobs) {
      bool paused = job.state == coordinator::JobState::kPaused, cancelled = job.state == coordinator::JobState::kCancelled;
      if (paused || cancelled) client_->Ask(paused ? "resume" : "retry", {{"job", id}}, [](const Reply&) {});
      ended = ended && job.finished() && !cancelled;
    }
    if (!ended) return timeline_.In(Duration(5), [this] { Settle(); });
    // Whoever was cut off, stopped or dropped has time to hear of it.
    timeline_.In(2 * scenario_.lease_timeout + Duration(20), [this] { CollectAll(); });
  }

  // What is left afterwards is what reports, digests and versions need.
  void CollectAll() {
    if (!coordinator_) return timeline_.In(Duration(1), [this] { CollectAll(); });
    if (scenario_.collections == 0) return AskForResults();
    client_->Ask("gc", {{"young_ms", 0}}, [this](const Reply& reply) {
      if (!reply.ok) oracle_.Fail("gc: " + reply.message);
      AskForResults();
    });
  }

  void AskForResults() {
    if (!coordinator_) return timeline_.In(Duration(1), [this] { AskForResults(); });
    oracle_.Finally(coordinator_->state());
    for (const auto& [id, job] : coordinator_->state().jobs) {
      ++outcome_.jobs;
      outcome_.job_hours += static_cast<double>(std::max<int64_t>(0, job.finished_ms - job.created_ms)) / 3'600'000;
      if (oracle_.GivenUp(coordinator_->state(), job)) {
        ++outcome_.given_up;
        continue;
      }
      client_->Ask("digest", {{"job", id}}, [this, job = id](const Reply& reply) {
        if (!reply.ok) return oracle_.Fail("digest: " + reply.message);
        if (reply.result["total"] != oracle_.ExpectedTotal(job)) oracle_.Fail("the digest of job " + job + " is not that of an undisturbed run" + Failures(job));
      });
    }
    for (const auto& [key, step] : coordinator_->state().steps) {
      outcome_.steps += step.state == coordinator::StepState::kDone;
      outcome_.attempts += static_cast<int64_t>(step.attempts().size());
      outcome_.lost += std::count_if(step.attempts().begin(), step.attempts().end(), [](const auto& a) { return a.outcome == "lost"; });
    }
    AwaitResults();
  }

  void AwaitResults() {
    over_ = client_->idle();
    if (!over_) timeline_.In(Duration(1), [this] { AwaitResults(); });
  }

  // ---- words ----

  void Trace(const std::string& what) { std::printf("%10.3f s  %s\n", static_cast<double>(timeline_.now().count()) / 1000, what.c_str()); }
  void Say(const std::string& what) {
    if (trace_) Trace("** " + what);
  }

  std::string Failures(const std::string& id) {
    std::string text;
    for (const coordinator::JobStep& in_job : coordinator_->state().jobs.at(id).steps) {
      const coordinator::Step& step = *coordinator_->state().FindStep(in_job.key);
      if (step.state != coordinator::StepState::kDone) text += "\n  " + in_job.name + " " + std::string(ToString(step.state)) + " " + step.problem.OrDefault().error_class + ": " + step.problem.OrDefault().message + ", " + std::to_string(step.attempts().size()) + " attempts";
    }
    return text;
  }

  std::string Stuck() {
    if (!coordinator_) return "there is no coordinator";
    std::string text;
    coordinator::Now now{timeline_.now(), clock_.Wall()};
    for (const auto& [id, job] : coordinator_->state().jobs) {
      if (job.finished()) continue;
      text += id + " is " + std::string(ToString(job.state));
      for (const coordinator::JobStep& in_job : job.steps) {
        const coordinator::Step& step = *coordinator_->state().FindStep(in_job.key);
        if (step.state == coordinator::StepState::kDone || !in_job.wanted) continue;
        text += "\n  " + in_job.name + ": " + std::visit([](const auto& d) { return d.reason; }, Explain(coordinator_->state(), step, now));
      }
    }
    return text.empty() ? "the jobs have ended, the simulation has not" : text;
  }

  Scenario scenario_;
  bool trace_;
  Timeline timeline_;
  RandomStream random_;
  Network network_;
  Disk disk_;
  DiskIndex index_;
  SimClock clock_;
  DiskBlobs blobs_;
  Oracle oracle_;
  Sha256 history_;
  GangHall gangs_;
  std::unique_ptr<CoordinatorProcess> coordinator_;
  std::vector<std::pair<int64_t, std::unique_ptr<AgentProcess>>> workers_;
  std::unique_ptr<ClientProcess> client_;
  std::set<int64_t> pids_;
  int64_t last_pid_ = 100;
  std::vector<std::string> ids_;
  size_t answered_submits_ = 0;
  Millis work_{0};
  Millis give_up_ = Millis::max();
  bool healed_ = false, over_ = false;
  Outcome outcome_;
};

}  // namespace

Outcome Simulate(uint64_t seed, bool trace) { return Simulator(seed, trace).Run(); }

}  // namespace pare::simulation
