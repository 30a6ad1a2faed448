#include "tests/simulation/runner.h"

#include <algorithm>
#include <utility>

namespace pare::simulation {

using worker::RunnerEvent;

namespace {

constexpr Millis kRendezvousPatience{30'000};
constexpr Millis kFirstsPatience{5'000};

}  // namespace

std::string GangHall::Enter(const std::string& name, const worker::Assignment& assignment, SimulatedRunner* runner) {
  Room& room = rooms_[name];
  if (room.runners.empty()) room.assignment = assignment;
  const worker::Assignment& first = room.assignment;
  if (first.key != assignment.key || first.lease_epoch != assignment.lease_epoch || first.gang.size != assignment.gang.size || first.snapshot != assignment.snapshot) {
    return "workers of different gangs meet";
  }
  if (!room.runners.emplace(assignment.gang.rank, runner).second) return "two workers of a gang have one rank";
  room.size = std::max(room.size, room.runners.size());
  if (room.runners.size() < static_cast<size_t>(assignment.gang.size)) return "";
  ++begun_;
  for (auto& [rank, one] : std::map<int, SimulatedRunner*>(room.runners)) one->GangBegins();
  return "";
}

void GangHall::Leave(SimulatedRunner* runner, bool done) {
  for (auto room = rooms_.begin(); room != rooms_.end(); ++room) {
    auto& runners = room->second.runners;
    if (std::erase_if(runners, [&](const auto& one) { return one.second == runner; }) == 0) continue;
    bool begun = room->second.size == static_cast<size_t>(room->second.assignment.gang.size);
    std::map<int, SimulatedRunner*> others = runners;
    if (runners.empty() || (begun && !done)) rooms_.erase(room);
    if (begun && !done) {
      ++broken_;
      for (auto& [rank, one] : others) one->GangBroke();
    }
    return;
  }
}

void SimulatedRunner::After(Millis delay, std::function<void()> what) {
  parts_.timeline.In(delay, [generation = generation_, expected = *generation_, what = std::move(what)] {
    if (*generation == expected) what();
  });
}

void SimulatedRunner::Report(RunnerEvent event) {
  events_.push_back(std::move(event));
  parts_.reports();
}

void SimulatedRunner::Launch(const worker::RunnerSource&) {
  ++*generation_;
  running_.reset();
  parts_.gangs.Leave(this, false);
  events_.clear();
  alive_ = false;
  launched_ = true;
  After(Millis(1'000 + static_cast<int64_t>(parts_.random.Below(2'000))), [this] {
    alive_ = true;
    Report(worker::RunnerReady{"cpu"});
  });
}

void SimulatedRunner::Kill(bool out_of_memory) {
  if (!launched_) return;
  launched_ = false;
  ++*generation_;
  running_.reset();
  parts_.gangs.Leave(this, false);
  alive_ = false;
  Report(worker::RunnerLost{"killed by signal 9", out_of_memory});
}

void SimulatedRunner::Start(const worker::Assignment& assignment) {
  if (running_) return parts_.problem("a runner is given a step while it has one");
  if (!alive_) return;
  ++*generation_;
  running_ = Running{.assignment = assignment, .work = WorkOf(assignment.key, assignment.spec, parts_.scenario.scale), .began = parts_.timeline.now()};
  for (const auto& [role, artifact] : assignment.inputs) {
    auto input = storage::GetArtifact(parts_.blobs, artifact);
    bool whole = input.ok() && std::all_of(input->blobs.begin(), input->blobs.end(), [&](const auto& blob) { return *parts_.blobs.Contains(blob.second.digest); });
    if (!whole) return Fail("corrupt", "input " + role + " is not in the store");
  }
  if (!assignment.snapshot.is_none()) {
    auto bytes = parts_.blobs.Get(assignment.snapshot);
    if (!bytes.ok()) return Fail("corrupt", "its snapshot is not in the store");
    auto resumed = ReadSnapshot(assignment.key, bytes->text());
    if (!resumed) return parts_.problem("step " + assignment.key.brief() + " is to resume from a snapshot that is not its own");
    running_->epoch = resumed->epoch;
    running_->link = resumed->link;
  }
  if (assignment.gang.size == 1) return NextEpoch();
  After(Millis(static_cast<int64_t>(parts_.random.Below(3'000))), [this] {
    running_->joins = true;
    Report(worker::StepJoins{parts_.gangs.NewEndpoint()});
  });
}

void SimulatedRunner::Join(const std::vector<std::string>& endpoints) {
  if (!running_ || !running_->joins || running_->stopping) return;
  if (endpoints.size() != static_cast<size_t>(running_->assignment.gang.size)) return parts_.problem("a gang begins with another number of workers");
  running_->joins = false;
  After(kRendezvousPatience, [this] { GangBroke(); });
  std::string problem = parts_.gangs.Enter(endpoints[0], running_->assignment, this);
  if (!problem.empty()) parts_.problem(problem);
}

void SimulatedRunner::GangBegins() {
  ++*generation_;  // patience is over
  NextEpoch();
  if (running_->assignment.gang.rank != 0 || parts_.random.Uniform() >= parts_.scenario.gang_breaks) return;
  After(Millis(static_cast<int64_t>(parts_.random.Uniform() * 3 * static_cast<double>(running_->work.epoch_time.count()))), [this] { GangBroke(); });
}

// Like a stop that nobody asked for: with what the last whole epoch left.
void SimulatedRunner::GangBroke() {
  if (!running_ || running_->stopping) return;
  Stop(true);
}

void SimulatedRunner::NextEpoch() {
  After(running_->work.epoch_time, [this] { EpochDone(); });
}

void SimulatedRunner::EpochDone() {
  Running& run = *running_;
  run.link = NextLink(run.assignment.key, run.assignment.inputs, run.epoch + 1, run.link);
  ++run.epoch;
  if (run.work.diverges && run.epoch >= run.work.epochs) return Fail("diverged", "the loss is NaN");
  if (run.assignment.gang.rank == 0) Report(worker::StepProgress{{{"epoch", run.epoch}, {"epochs", run.work.epochs}, {"eta_s", static_cast<double>((run.work.epochs - run.epoch) * run.work.epoch_time.count()) / 1000}}});
  if (run.epoch >= run.work.epochs && run.assignment.gang.rank != 0) return After(kFirstsPatience, [this] { Finish(); });
  if (run.epoch >= run.work.epochs) return Finish();
  if (run.assignment.gang.rank != 0) return NextEpoch();
  auto snapshot = parts_.blobs.Put(std::string_view(SnapshotOf(run.assignment.key, run.epoch, run.link)));
  if (!snapshot.ok()) return Fail("no_space", snapshot.error().message);
  Report(worker::StepSnapshot{*snapshot, {{"epoch", run.epoch}}});
  NextEpoch();
}

void SimulatedRunner::Finish() {
  Running& run = *running_;
  Json input;
  auto model = run.assignment.inputs.find("model");
  if (model != run.assignment.inputs.end()) input = storage::GetArtifact(parts_.blobs, model->second)->results;
  std::string bytes;
  storage::Artifact artifact = ResultOf(run.assignment.key, run.assignment.spec, run.assignment.inputs, input, run.link, &bytes);
  auto blob = parts_.blobs.Put(std::string_view(bytes));
  auto manifest = blob.ok() ? storage::PutArtifact(parts_.blobs, artifact) : Result<Digest>(blob.error());
  if (!manifest.ok()) return Fail("no_space", manifest.error().message);
  End(worker::StepDone{*manifest, storage::ToJson(artifact), Busy()});
}

void SimulatedRunner::End(RunnerEvent event) {
  running_.reset();
  ++*generation_;
  parts_.gangs.Leave(this, std::holds_alternative<worker::StepDone>(event));
  Report(std::move(event));
}

void SimulatedRunner::Fail(const std::string& error_class, const std::string& message) {
  End(worker::StepFailed{error_class, message, Busy()});
}

void SimulatedRunner::Stop(bool keep) {
  if (!running_ || (running_->stopping && (keep || !*running_->stopping))) return;
  if (keep && running_->epoch >= running_->work.epochs) return Finish();  // the first one of its gang is gone
  running_->stopping = keep;
  if (!keep && parts_.random.Uniform() < parts_.scenario.hangs) return;  // does not listen
  ++*generation_;  // the epoch under way comes to nothing
  After(Millis(static_cast<int64_t>(parts_.random.Below(1'000))), [this] { Stopped(); });
}

void SimulatedRunner::Stopped() {
  Running& run = *running_;
  worker::StepStopped stopped{{}, nullptr, Busy()};
  if (*run.stopping && run.epoch > 0) {
    auto snapshot = parts_.blobs.Put(std::string_view(SnapshotOf(run.assignment.key, run.epoch, run.link)));
    if (snapshot.ok()) stopped = {*snapshot, {{"epoch", run.epoch}}, Busy()};
  }
  End(std::move(stopped));
}

}  // namespace pare::simulation
