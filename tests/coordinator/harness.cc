#include "tests/coordinator/harness.h"

#include <set>

namespace pare::coordinator {
namespace {

std::map<std::string, PlanLine> LinesOf(const recipes::ResolvedRecipe& recipe, std::vector<std::string>* order) {
  std::map<std::string, PlanLine> lines;
  for (const Json& json : recipe.tree["plan"]) {
    PlanLine line{json["name"], json["kind"], json["variant"], json["inputs"], json["candidate"], json["local"], json["cost"], json["gang"]};
    order->push_back(line.name);
    lines[line.name] = line;
  }
  return lines;
}

recipes::PlannedSteps PlanAll(const recipes::ResolvedRecipe& recipe) {
  std::vector<std::string> order;
  std::map<std::string, PlanLine> lines = LinesOf(recipe, &order);
  std::map<std::string, StepKey> keys;
  recipes::PlannedSteps plan;
  for (const std::string& name : order) {
    const PlanLine& line = lines[name];
    recipes::PlannedStep step{.name = name, .variant = line.variant, .local = line.local, .candidate = line.candidate};
    // Two recipes that name a step alike mean the same step.
    step.spec = {.kind = line.kind, .params = {{"name", name}}, .seed = 1};
    for (size_t i = 0; i < line.inputs.size(); ++i) step.spec.inputs[std::to_string(i)] = keys.at(line.inputs[i]);
    if (line.gang > 1) step.hints = Json{{"gang", line.gang}};
    if (!line.inputs.empty()) step.model_step = line.inputs[0];
    step.Seal();
    keys[name] = step.key;
    plan.Add(std::move(step));
  }
  return plan;
}

}  // namespace

data::DataInfo TestData() {
  data::DataInfo info;
  info.fingerprint = DigestOf("data");
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

recipes::ResolvedRecipe TestRecipe(const std::string& name, const std::vector<PlanLine>& plan) {
  static const recipes::ResolvedRecipe kBase = [] {
    auto recipe = recipes::Recipe::Parse("version: 1\nname: base\nmodel: {architecture: mlp, hidden: [8]}\ndata: {dataset: fashion-mnist, validation: 5000}\n"
                                         "train: {epochs: 1}\nvariants: {a: [{prune: {sparsity: 0.5}}]}\n", "base.yaml");
    EXPECT_TRUE(recipe.ok()) << recipe.error().message;
    auto resolved = recipes::Resolve(*recipe, TestData(), Digest());
    EXPECT_TRUE(resolved.ok()) << resolved.error().message;
    return *resolved;
  }();
  recipes::ResolvedRecipe recipe = kBase;
  recipe.name = name;
  recipe.tree["name"] = name;
  recipe.tree["plan"] = Json::array();
  for (const PlanLine& line : plan) {
    recipe.tree["plan"].push_back({{"name", line.name}, {"kind", line.kind}, {"variant", line.variant}, {"inputs", line.inputs},
                                   {"candidate", line.candidate}, {"local", line.local}, {"cost", line.cost}, {"gang", line.gang}});
  }
  return recipe;
}

Planner TestPlanner() {
  Planner planner;
  planner.next = [](const recipes::ResolvedRecipe& recipe, const recipes::Outcomes& outcomes) {
    recipes::PlannedSteps wanted;
    std::set<StepKey> dead;
    for (const recipes::PlannedStep& step : PlanAll(recipe)) {
      bool alive = true, known = true;
      for (const auto& [role, input] : step.spec.inputs) {
        alive = alive && dead.count(input) == 0;
        known = known && outcomes.count(input) != 0;
      }
      auto outcome = outcomes.find(step.key);
      if (!alive || (outcome != outcomes.end() && !outcome->second.done)) dead.insert(step.key);
      if (alive && (known || !step.local)) wanted.Add(step);
    }
    return wanted;
  };
  planner.decide = [](const recipes::PlannedStep& step, const recipes::ResolvedRecipe&, const recipes::Outcomes& outcomes) {
    Json results = {{"as", "model"}, {"reason", "first"}, {"met_goal", true}, {"chosen", step.model_step}};
    results["artifact"] = outcomes.at(step.spec.inputs.begin()->second).artifact.hex();
    return results;
  };
  planner.cost = [](const recipes::PlannedStep& step, const recipes::ResolvedRecipe& recipe) {
    std::vector<std::string> order;
    return LinesOf(recipe, &order).at(step.name).cost;
  };
  return planner;
}

Json ManifestOf(const StepKey& key) {
  return storage::ToJson(storage::Artifact{.kind = "checkpoint", .step = key, .results = {{"parameters", 7}, {"layers", "many"}}});
}

Digest ArtifactOf(const Json& manifest) { return DigestOf(std::string_view(Canonical(manifest))); }

std::string TextOf(const Actions& actions) {
  std::string text;
  for (const std::string& blob : actions.blobs) text += "blob " + blob + "\n";
  for (const storage::Row& row : actions.rows) {
    text += "row " + std::to_string(row.index()) + " ";
    if (auto* r = std::get_if<storage::JobRow>(&row)) text += r->id + r->state + r->message;
    if (auto* r = std::get_if<storage::StepRow>(&row)) text += r->key.hex() + r->state + r->artifact.hex() + r->message;
    if (auto* r = std::get_if<storage::JobStepRow>(&row)) text += r->job + r->name + r->key.hex();
    if (auto* r = std::get_if<storage::AttemptRow>(&row)) text += r->key.hex() + std::to_string(r->epoch) + r->worker + r->outcome;
    if (auto* r = std::get_if<storage::MetricRow>(&row)) text += std::to_string(r->sequence) + r->values.text();
    if (auto* r = std::get_if<storage::EventRow>(&row)) text += r->job + std::to_string(r->sequence) + r->text;
    text += "\n";
  }
  for (const Send& send : actions.sends) text += "send " + send.peer + " " + Encode(send.message) + "\n";
  return text;
}

Harness::Harness() : Harness(Config()) {}

Harness::Harness(Config config) : config_(config) {
  index = *storage::Index::OpenInMemory();
  Restart();
}

void Harness::Restart() {
  core = std::make_unique<Scheduler>(config_, Site{"/store", "here", "blobs"}, TestPlanner());
  auto stored = index->Load();
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  Learn(core->Restore(*std::move(stored), Time()));
}

Actions Harness::Do(const Event& event) {
  Actions actions = core->Apply(event, Time());
  Learn(actions);
  return actions;
}

void Harness::Learn(const Actions& actions) {
  history += TextOf(actions);
  Status status = index->Commit(actions.rows);
  ASSERT_TRUE(status.ok()) << status.error().message;
  for (const Send& send : actions.sends) {
    sent.push_back(send);
    auto agent = agents_.find(send.peer);
    if (auto* grant = std::get_if<Grant>(&send.message)) {
      grants_[send.peer] = *grant;
      if (agent != agents_.end()) agent->second.running = {grant->lease};
    }
  }
}

void Harness::Pass(Millis time) {
  constexpr Millis kStep{250};
  for (Millis passed{0}; passed < time; passed += kStep) {
    clock.Advance(std::min(kStep, time - passed));
    std::map<std::string, Agent> now = agents_;
    for (const auto& [worker, agent] : now) Do(FromAgent{worker, Heartbeat{worker, agent.running, agent.cached}});
    Tick();
  }
}

Reply Harness::SubmitPlan(const std::string& name, const std::vector<PlanLine>& plan, bool reuse, int64_t priority) {
  clock.Advance(Millis(1));
  Do(Submit{.caller = {"client", 1}, .recipe_text = name, .recipe = TestRecipe(name, plan), .reuse = reuse, .priority = priority});
  Tick();
  return *LastSent<Reply>(sent, "client");
}

Reply Harness::SubmitPlanAs(const std::string& user, const std::string& name, const std::vector<PlanLine>& plan, int64_t priority) {
  clock.Advance(Millis(1));
  Do(Submit{.caller = {"client", 1}, .user = user, .recipe_text = name, .recipe = TestRecipe(name, plan), .priority = priority});
  Tick();
  return *LastSent<Reply>(sent, "client");
}

std::string Harness::NameGranted(const std::string& worker) {
  StepKey key = Granted(worker).lease.step;
  for (const auto& [id, job] : core->state().jobs) {
    if (const JobStep* step = job.Find(key)) return step->name;
  }
  return "";
}

Reply Harness::Change(ChangeJob::What what, const std::string& job) {
  Do(ChangeJob{{"client", 2}, what, job});
  Tick();
  return *LastSent<Reply>(sent, "client");
}

void Harness::Join(const std::string& worker, const std::vector<Lease>& running, const std::string& device) {
  agents_[worker] = {running, {}};
  Do(FromAgent{worker, Hello{worker, std::string(kPareVersion), "here", device, 1, running, {}}});
  Tick();
}

Grant Harness::Granted(const std::string& worker) {
  EXPECT_TRUE(HasGrant(worker)) << worker << " has no grant";
  return grants_[worker];
}

void Harness::Over(const std::string& worker) {
  grants_.erase(worker);
  if (agents_.count(worker) != 0) agents_[worker].running.clear();
}

Actions Harness::Finish(const std::string& worker) {
  Grant grant = Granted(worker);
  Json manifest = ManifestOf(grant.lease.step);
  Over(worker);
  if (agents_.count(worker) != 0) agents_[worker].cached.insert(agents_[worker].cached.begin(), ArtifactOf(manifest));
  Actions actions = FromWorker(worker, StepFinished{grant.lease, ArtifactOf(manifest), manifest, 1000});
  actions.Append(Tick());
  return actions;
}

Actions Harness::Abort(const std::string& worker, const std::string& error_class, const std::string& message) {
  Grant grant = Granted(worker);
  Over(worker);
  Actions actions = FromWorker(worker, StepAborted{grant.lease, error_class, message, 10});
  actions.Append(Tick());
  return actions;
}

Actions Harness::Release(const std::string& worker, const std::string& snapshot) {
  Grant grant = Granted(worker);
  Over(worker);
  Actions actions = FromWorker(worker, Released{grant.lease, snapshot.empty() ? Digest() : DigestOf(snapshot), {{"epoch", 1}}, 10});
  actions.Append(Tick());
  return actions;
}

const Job& Harness::JobNamed(const std::string& job) {
  auto found = core->state().FindJob(job);
  EXPECT_TRUE(found.ok());
  return **found;
}

const Step& Harness::StepNamed(const std::string& name, const std::string& job) {
  const JobStep* in_job = JobNamed(job).Find(name);
  EXPECT_NE(in_job, nullptr) << name;
  return *core->state().FindStep(in_job->key);
}

std::vector<std::string> Harness::EventTexts(const std::string& job) {
  std::vector<std::string> texts;
  auto events = index->Events(JobNamed(job).id, 0, 1000);
  EXPECT_TRUE(events.ok());
  for (const storage::EventRow& row : *events) texts.push_back(row.step + ": " + row.text);
  return texts;
}

}  // namespace pare::coordinator
