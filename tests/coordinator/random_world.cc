#include "tests/coordinator/random_world.h"

#include <algorithm>

namespace pare::coordinator {
RandomWorld::RandomWorld(uint64_t seed) : index(*storage::Index::OpenInMemory()), random_(seed, RandomPurpose::kTest) {
  for (int i = 0; i < 4; ++i) agents_["w" + std::to_string(i)];
  Restart();
}

void RandomWorld::Restart() {
  core = Loaded();
  for (auto& [name, agent] : agents_) agent.greeted = false;
}

std::unique_ptr<Scheduler> RandomWorld::Loaded() {
  auto loaded = std::make_unique<Scheduler>(Config(), coordinator::Site{"/store", "here", "blobs"}, TestPlanner());
  auto stored = index->Load();
  EXPECT_TRUE(stored.ok());
  Actions actions = loaded->Restore(*std::move(stored), {clock.Monotonic(), clock.Wall()});
  EXPECT_EQ(coordinator::TextOf(actions), "");
  return loaded;
}

void RandomWorld::Apply(const Event& event) { pending_.Append(core->Apply(event, {clock.Monotonic(), clock.Wall()})); }

void RandomWorld::Turn() {
  for (uint64_t n = 1 + Below(4); n > 0; --n) RandomEvent();
  clock.Advance(Millis(static_cast<int64_t>(Below(20) == 0 ? Below(4'000) : Below(300))));
  Apply(Tick{});
  Commit();
}

void RandomWorld::Commit() {
  history += coordinator::TextOf(pending_);
  Status status = index->Commit(pending_.rows);
  ASSERT_TRUE(status.ok()) << status.error().message;
  for (const Send& send : pending_.sends) {
    auto agent = agents_.find(send.peer);
    if (agent == agents_.end()) continue;
    if (auto* grant = std::get_if<Grant>(&send.message)) {
      if (Below(20) == 0) continue;  // lost on the way
      agent->second.lease = grant->lease;
      agent->second.points = 0;
    }
    if (auto* ack = std::get_if<Ack>(&send.message); ack != nullptr && ack->of == "step_finished") finished.push_back(ack->lease);
    if (auto* stale = std::get_if<Stale>(&send.message); stale != nullptr && agent->second.lease == stale->lease) agent->second.lease.reset();
    if (std::holds_alternative<Refused>(send.message)) agent->second.greeted = false;
  }
  pending_ = Actions();
}

void RandomWorld::RandomEvent() {
  uint64_t dice = Below(100);
  if (dice < 80) {
    auto agent = agents_.begin();
    std::advance(agent, static_cast<int64_t>(Below(agents_.size())));
    return AgentEvent(agent->first, agent->second);
  }
  if (dice < 97) return JobEvent();
  if (dice < 99 && !state().steps.empty()) {
    std::vector<StepKey> keys;
    for (const auto& [key, step] : state().steps) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    return Apply(ArtifactsLost{{keys[Below(keys.size())]}});
  }
  Apply(WorkerGone{"w" + std::to_string(Below(4)), "it has ended"});
}

void RandomWorld::Greet(const std::string& name, Agent& agent) {
  Hello hello{name, std::string(kPareVersion), "here", "cpu", 1, {}, {}};
  if (agent.lease) hello.running = {*agent.lease};
  agent.greeted = true;
  Apply(FromAgent{name, hello});
}

void RandomWorld::AgentEvent(const std::string& name, Agent& agent) {
  if (!agent.greeted) return Greet(name, agent);
  uint64_t dice = Below(100);
  if (dice < 30 || !agent.lease) {
    if (dice < 3) return Apply(FromAgent{name, Goodbye{name}});
    if (dice < 10 && !agent.old.empty()) return ZombieEvent(name, agent.old[Below(agent.old.size())]);
    Heartbeat heartbeat{name, {}, {}};
    if (agent.lease) heartbeat.running = {*agent.lease};
    return Apply(FromAgent{name, heartbeat});
  }
  Lease lease = *agent.lease;
  if (dice < 45) {
    int64_t after = agent.points++;
    Progress progress{lease, after, {{agent.points, {{"epoch", agent.points}}}}};
    return Apply(FromAgent{name, progress});
  }
  if (dice < 55) return Apply(FromAgent{name, SnapshotTaken{lease, static_cast<int64_t>(1 + Below(6)), DigestOf("snapshot " + std::to_string(Below(1'000'000))), {{"epoch", Below(5)}}}});
  EndStep(name, agent);
}

Message RandomWorld::FinishedBy(const Lease& lease) {
  Json manifest = ManifestOf(lease.step);
  return StepFinished{lease, ArtifactOf(manifest), manifest, static_cast<int64_t>(Below(1'000))};
}

void RandomWorld::EndStep(const std::string& name, Agent& agent) {
  static const std::vector<std::string> kClasses = {"diverged", "bad_input", "out_of_memory", "no_space", "runner_lost", "corrupt", "internal", "unheard of"};
  Lease lease = *agent.lease;
  agent.old.push_back(lease);
  agent.lease.reset();
  uint64_t dice = Below(100);
  if (dice < 60) return Apply(FromAgent{name, FinishedBy(lease)});
  if (dice < 85) return Apply(FromAgent{name, StepAborted{lease, kClasses[Below(kClasses.size())], "it broke", 7}});
  Released released{lease, {}, JsonText(), 3};
  if (dice < 95) released.snapshot = DigestOf("released " + std::to_string(Below(1'000'000))), released.position = {{"epoch", 1}};
  Apply(FromAgent{name, released});
}

void RandomWorld::ZombieEvent(const std::string& name, const Lease& lease) {
  switch (Below(4)) {
    case 0: return Apply(FromAgent{name, FinishedBy(lease)});
    case 1: return Apply(FromAgent{name, SnapshotTaken{lease, 1, DigestOf("zombie"), {}}});
    case 2: return Apply(FromAgent{name, StepAborted{lease, "diverged", "zombie", 1}});
    default: return Apply(FromAgent{name, Progress{lease, 0, {{1, {{"epoch", 1}}}}}});
  }
}

// Steps are drawn from a pool by name, so that jobs share them: step i builds on earlier ones.
recipes::ResolvedRecipe RandomWorld::RandomRecipe() {
  std::vector<PlanLine> plan;
  std::vector<std::string> candidates;
  uint64_t pool = 3 + Below(6);
  for (uint64_t i = 0; i < pool; ++i) {
    PlanLine line{.name = "s" + std::to_string(i), .variant = i == 0 ? "" : "v", .candidate = i > 0, .cost = static_cast<int64_t>(1 + i)};
    if (i > 0) line.inputs = {"s" + std::to_string((i * 7 + pool) % i)};
    plan.push_back(line);
    candidates.push_back(line.name);
  }
  if (Below(2) == 0) plan.push_back({.name = "promote", .kind = "promote", .variant = "", .inputs = candidates, .local = true});
  return TestRecipe("job" + std::to_string(Below(3)), plan);
}

void RandomWorld::JobEvent() {
  uint64_t dice = Below(100);
  Caller caller{"client", 1};
  size_t unfinished = static_cast<size_t>(std::count_if(state().jobs.begin(), state().jobs.end(), [](const auto& job) { return !job.second.finished(); }));
  if ((dice < 50 && unfinished < 4) || state().jobs.empty()) {
    std::string user = "user" + std::to_string(Below(3));
    return Apply(Submit{.caller = caller, .user = user, .recipe_text = "text", .recipe = RandomRecipe(), .reuse = Below(2) == 0, .priority = static_cast<int64_t>(Below(3))});
  }
  auto job = state().jobs.begin();
  std::advance(job, static_cast<int64_t>(Below(state().jobs.size())));
  ChangeJob::What what = dice < 60 ? ChangeJob::What::kPause : dice < 80 ? ChangeJob::What::kResume : dice < 85 ? ChangeJob::What::kCancel : ChangeJob::What::kRetry;
  if (dice >= 95 && !state().models.empty()) return Apply(Rollback{caller, state().models.begin()->first});
  Apply(ChangeJob{caller, what, job->first});
}

void RandomWorld::Settle(int turns) {
  std::vector<std::string> paused;
  for (const auto& [id, job] : state().jobs) {
    if (job.state == JobState::kPaused) paused.push_back(id);
  }
  for (const std::string& id : paused) Apply(ChangeJob{{"client", 1}, ChangeJob::What::kResume, id});
  for (int i = 0; i < turns; ++i) {
    for (auto& [name, agent] : agents_) {
      if (!agent.greeted) {
        Greet(name, agent);
      } else if (agent.lease) {
        Lease lease = *std::exchange(agent.lease, std::nullopt);
        Apply(FromAgent{name, FinishedBy(lease)});
      } else {
        Apply(FromAgent{name, Heartbeat{name, {}, {}}});
      }
    }
    clock.Advance(Millis(400));
    Apply(Tick{});
    Commit();
  }
}

}  // namespace pare::coordinator
