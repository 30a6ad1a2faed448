#include "bench/coordinator/load.h"

#include <filesystem>
#include <fstream>

#include "bench/coordinator/cluster.h"
#include "common/messages.h"
#include "common/version.h"
#include "recipes/recipe.h"
#include "storage/artifact.h"
#include "storage/store.h"

namespace pare::bench {
namespace {

constexpr const char* kHead = "\nmodel: {architecture: mlp, hidden: [8]}\ngoal: {max_accuracy_drop: 1.0, minimize: bytes}\n";
constexpr double kHeartbeatSeconds = 20;
constexpr Millis kPatience{60'000};

Json CheckpointResults() {
  return {{"parameters", 1000}, {"parameters_nonzero", 500}, {"multiply_adds", 900}, {"multiply_adds_nonzero", 400}, {"checkpoint_bytes", 2000},
          {"sparsity", {{"pruned_layers", 0.5}, {"weights", 0.5}, {"parameters", 0.5}}}};
}

Json EvaluationResults(const Json& params, const std::string& model) {
  return {{"split", params.at("split")}, {"correct", 4500}, {"total", 5000}, {"accuracy", 90.0}, {"interval", {89.2, 90.8}}, {"loss", 0.3},
          {"model", model}, {"summary", CheckpointResults()}};
}

std::string WorkerName(size_t i) { return "load-" + std::to_string(i); }

}  // namespace

data::DataInfo LoadData() {
  data::DataInfo info;
  info.fingerprint = DigestOf(std::string_view("load"));
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

std::string LoadRecipe(int64_t seed, int variants) {
  std::string yaml = "version: 1\nname: load" + std::to_string(seed) + "\nseed: " + std::to_string(seed) + kHead +
                     "data: {dataset: fashion-mnist, validation: 5000}\ntrain: {epochs: 2}\nvariants:\n";
  for (int v = 0; v < variants; ++v) {
    std::string sparsity = std::to_string(10'000 + 7 * v).substr(1);
    yaml += "  v" + std::to_string(v) + ":\n";
    for (const char* digit : {"5", "8"}) yaml += std::string("    - prune: {sparsity: 0.") + digit + sparsity + "}\n    - retrain: {epochs: 1}\n";
  }
  return yaml;
}

std::string TinyRecipe(int64_t seed) {
  return "version: 1\nname: tiny" + std::to_string(seed) + "\nseed: " + std::to_string(seed) + kHead +
         "data: {dataset: fashion-mnist, validation: 5000}\ntrain: {epochs: 1}\nvariants:\n  v:\n    - prune: {sparsity: 0.5}\n";
}

recipes::PlannedSteps PlanOf(const std::string& yaml) {
  auto recipe = recipes::Recipe::Parse(yaml, "load.yaml");
  if (!recipe.ok()) Die(recipe.error().message);
  auto resolved = recipes::Resolve(*recipe, LoadData(), Digest());
  if (!resolved.ok()) Die(resolved.error().message);
  return recipes::FullPlan(*resolved);
}

// Not durable: what is lost in a power cut here is a benchmark.
void Answers::Store(const Digest& digest, const std::string& bytes) {
  std::string path = storage::StorePaths(store_).blob(digest);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << bytes;
}

void Answers::Add(const std::string& yaml) {
  const std::string checkpoint = "a checkpoint";
  Digest blob = DigestOf(checkpoint);
  Store(blob, checkpoint);
  std::unordered_map<std::string, std::string> artifact_of;
  for (const recipes::PlannedStep& step : PlanOf(yaml)) {
    bool evaluation = step.spec.kind == "evaluate";
    storage::Artifact artifact{.kind = evaluation ? "evaluation" : "checkpoint", .step = step.key};
    artifact.blobs[evaluation ? "correct" : "checkpoint"] = {blob, static_cast<int64_t>(checkpoint.size())};
    artifact.results = evaluation ? EvaluationResults(step.spec.params, artifact_of.at(step.spec.inputs.at("model").hex())) : CheckpointResults();
    Json manifest = storage::ToJson(artifact);
    std::string bytes = Canonical(manifest);
    Digest digest = DigestOf(bytes);
    artifact_of[step.key.hex()] = digest.hex();
    Store(digest, bytes);
    constexpr int64_t kMark = 987'654'321;
    std::string message = Encode(StepFinished{{step.key, kMark}, digest, manifest, 1});
    std::string mark = std::to_string(kMark);
    size_t at = message.find(mark);
    parts_[step.key.hex()] = {message.substr(0, at), message.substr(at + mark.size())};
  }
}

std::string Answers::To(std::string_view grant) const {
  LeaseText lease = LeaseOf(grant);
  auto parts = parts_.find(lease.step);
  if (parts == parts_.end()) Die("a step was granted that nobody planned");
  return parts->second.before + lease.epoch + parts->second.after;
}

// Canonical JSON has its fields in order, so that no tree has to be built here.
std::string_view TypeOfBytes(std::string_view message) {
  constexpr std::string_view kField = "\"type\":\"";
  size_t at = message.rfind(kField);
  if (at == std::string_view::npos) return "";
  message.remove_prefix(at + kField.size());
  return message.substr(0, message.find('"'));
}

LeaseText LeaseOf(std::string_view grant) {
  constexpr std::string_view kLease = "\"lease\":{\"epoch\":", kStep = ",\"step\":\"";
  size_t at = grant.rfind(kLease);
  if (at == std::string_view::npos) Die("a grant without a lease");
  grant.remove_prefix(at + kLease.size());
  size_t comma = grant.find(',');
  return {std::string(grant.substr(0, comma)), std::string(grant.substr(comma + kStep.size(), 64))};
}

Workers::Workers(std::unique_ptr<ClientFleet> fleet, size_t count) : fleet_(std::move(fleet)), count_(count) {
  for (size_t i = 0; i < count; ++i) fleet_->Send(i, Encode(Hello{WorkerName(i), std::string(kPareVersion), "load", "cpu", 1, {}, {}}));
  beaten_ = Now();
}

std::string Workers::Heartbeat(size_t worker) const { return Encode(pare::Heartbeat{WorkerName(worker), {}, {}}); }

std::vector<std::pair<size_t, std::string>> Workers::Receive() {
  if (Now() - beaten_ > kHeartbeatSeconds) {
    beaten_ = Now();
    for (size_t i = 0; i < count_; ++i) fleet_->Send(i, Heartbeat(i));
  }
  auto received = fleet_->Receive(kPatience);
  if (received.empty()) Die("the coordinator says nothing any more");
  return received;
}

}  // namespace pare::bench
