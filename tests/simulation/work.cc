#include "tests/simulation/work.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace pare::simulation {
namespace {

constexpr uint64_t kDivergeOneIn = 60;

// A number below n that the key alone decides.
uint64_t Below(const StepKey& key, int byte, uint64_t n) {
  uint64_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | key.bytes()[static_cast<size_t>(byte + i)];
  return value % n;
}

double SparsityOf(const Json& params, double before) {
  if (params.contains("sparsity")) return params["sparsity"];
  if (params.contains("final_sparsity")) return params["final_sparsity"];
  if (params.contains("fraction_of_remaining")) return 1 - (1 - before) * (1 - params["fraction_of_remaining"].get<double>());
  return before;
}

Json CheckpointResults(double sparsity, const Digest& link) {
  auto nonzero = static_cast<int64_t>(std::llround(10'000 * (1 - sparsity)));
  return {{"parameters", 10'000}, {"parameters_nonzero", nonzero}, {"multiply_adds_nonzero", nonzero}, {"checkpoint_bytes", 4 * nonzero},
          {"sparsity", {{"pruned_layers", sparsity}}}, {"link", link.hex()}};
}

}  // namespace

Work WorkOf(const StepKey& key, const Json& spec, double scale) {
  const Json& params = spec["params"];
  Work work;
  int64_t seconds = 5 + static_cast<int64_t>(Below(key, 0, 55));
  if (params.contains("train")) {
    work.epochs = params.contains("stop_epoch") ? params["stop_epoch"].get<int64_t>() - params["start_epoch"].get<int64_t>() : params["train"]["epochs"].get<int64_t>();
    seconds = 60 + static_cast<int64_t>(Below(key, 0, 360));
  }
  work.epoch_time = Millis(std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(1000 * seconds) * scale)));
  work.diverges = params.contains("train") && Below(key, 4, kDivergeOneIn) == 0;
  return work;
}

Digest NextLink(const StepKey& key, const std::map<std::string, Digest>& inputs, int64_t epoch, const Digest& before) {
  std::string text = key.hex() + " " + std::to_string(epoch) + " " + before.hex();
  for (const auto& [role, artifact] : inputs) text += " " + role + "=" + artifact.hex();
  return DigestOf(std::string_view(text));
}

std::string SnapshotOf(const StepKey& key, int64_t epoch, const Digest& link) {
  return Canonical({{"step", key.hex()}, {"epoch", epoch}, {"link", link.hex()}});
}

std::optional<Resumed> ReadSnapshot(const StepKey& key, std::string_view bytes) {
  auto json = ParseJson(bytes, "snapshot");
  if (!json.ok() || json->value("step", "") != key.hex()) return std::nullopt;
  auto link = DigestField(*json, "link");
  auto epoch = IntField(*json, "epoch");
  if (!link.ok() || !epoch.ok()) return std::nullopt;
  return Resumed{*epoch, *link};
}

storage::Artifact ResultOf(const StepKey& key, const Json& spec, const std::map<std::string, Digest>& inputs, const Json& input, const Digest& link,
                           std::string* blob) {
  bool evaluation = spec["kind"] == "evaluate";
  *blob = "bytes of " + key.hex() + " " + link.hex();
  storage::Artifact artifact{.kind = evaluation ? "evaluation" : "checkpoint", .step = key};
  artifact.blobs[evaluation ? "correct" : "checkpoint"] = {DigestOf(std::string_view(*blob)), static_cast<int64_t>(blob->size())};
  if (evaluation) {
    double accuracy = 88 + static_cast<double>(Below(key, 8, 200)) / 100;
    artifact.results = {{"split", spec["params"]["split"]}, {"accuracy", accuracy}, {"model", inputs.at("model").hex()}, {"summary", input}};
  } else {
    double before = input.is_null() ? 0 : input["sparsity"]["pruned_layers"].get<double>();
    artifact.results = CheckpointResults(SparsityOf(spec["params"], before), link);
  }
  return artifact;
}

Undisturbed RunUndisturbed(const recipes::ResolvedRecipe& recipe, double scale) {
  recipes::Outcomes outcomes;
  std::map<std::string, std::string> lines;
  for (bool learnt = true; learnt;) {
    learnt = false;
    lines.clear();
    for (const recipes::PlannedStep& step : recipes::Next(recipe, outcomes)) {
      auto known = outcomes.find(step.key);
      if (known == outcomes.end()) {
        Json spec = recipes::ToJson(step.spec);
        recipes::StepOutcome outcome{.done = true};
        storage::Artifact artifact{.kind = "decision", .step = step.key};
        if (step.local) {
          artifact.results = recipes::RunLocalStep(step, recipe, outcomes);
        } else {
          std::map<std::string, Digest> inputs;
          Json input;
          for (const auto& [role, key] : step.spec.inputs) {
            inputs[role] = outcomes.at(key).artifact;
            if (role == "model") input = outcomes.at(key).results.Tree();
          }
          Work work = WorkOf(step.key, spec, scale);
          outcome.done = !work.diverges;
          Digest link;
          for (int64_t epoch = 1; epoch <= work.epochs; ++epoch) link = NextLink(step.key, inputs, epoch, link);
          std::string blob;
          artifact = ResultOf(step.key, spec, inputs, input, link, &blob);
        }
        if (outcome.done) {
          outcome.artifact = DigestOf(std::string_view(Canonical(storage::ToJson(artifact))));
          outcome.results = artifact.results;
        }
        known = outcomes.emplace(step.key, std::move(outcome)).first;
        learnt = true;
        if (!known->second.done) break;  // the plan changes
      }
      std::string artifact = known->second.done ? known->second.artifact.hex() : "";
      lines[step.name] = step.name + " " + step.key.hex() + " " + artifact + "\n";
    }
  }
  Undisturbed result;
  for (const auto& [key, outcome] : outcomes) {
    if (outcome.done) result.artifacts[key] = outcome.artifact;
  }
  Sha256 total;
  for (const auto& [name, line] : lines) total.Update(line);
  result.total = Digest(total.Finish()).hex();
  return result;
}

}  // namespace pare::simulation
