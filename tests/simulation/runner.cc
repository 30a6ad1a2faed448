#include "tests/simulation/runner.h"

#include <algorithm>
#include <utility>

namespace pare::simulation {

using worker::RunnerEvent;

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
  NextEpoch();
}

void SimulatedRunner::NextEpoch() {
  After(running_->work.epoch_time, [this] { EpochDone(); });
}

void SimulatedRunner::EpochDone() {
  Running& run = *running_;
  run.link = NextLink(run.assignment.key, run.assignment.inputs, run.epoch + 1, run.link);
  ++run.epoch;
  if (run.work.diverges && run.epoch >= run.work.epochs) return Fail("diverged", "the loss is NaN");
  Report(worker::StepProgress{{{"epoch", run.epoch}, {"epochs", run.work.epochs}}});
  if (run.epoch >= run.work.epochs) return Finish();
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
  worker::StepDone done{*manifest, storage::ToJson(artifact), Busy()};
  running_.reset();
  ++*generation_;
  Report(std::move(done));
}

void SimulatedRunner::Fail(const std::string& error_class, const std::string& message) {
  worker::StepFailed failed{error_class, message, Busy()};
  running_.reset();
  ++*generation_;
  Report(std::move(failed));
}

void SimulatedRunner::Stop(bool keep) {
  if (!running_ || (running_->stopping && (keep || !*running_->stopping))) return;
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
  running_.reset();
  ++*generation_;
  Report(std::move(stopped));
}

}  // namespace pare::simulation
