// choose, adopt and compare: steps over results that are there already; no network runs.
#include <cmath>

#include "worker/runner/evaluation.h"
#include "worker/runner/steps.h"

namespace pare::runner {
namespace {

struct Evaluation {
  std::string split, model;
  int64_t correct = 0, total = 0;
  double accuracy = 0.0;
  std::string bitmap;  // bit i of byte i/8: sample i is classified correctly
};

Result<Evaluation> InputEvaluation(StepContext& context, const std::string& role) {
  ASSIGN_OR_RETURN(storage::Artifact artifact, InputArtifact(context, role, "evaluation"));
  Evaluation e;
  auto read = [&]() -> Status {
    ASSIGN_OR_RETURN(e.split, StringField(artifact.results, "split"));
    ASSIGN_OR_RETURN(e.model, StringField(artifact.results, "model"));
    ASSIGN_OR_RETURN(e.correct, IntField(artifact.results, "correct"));
    ASSIGN_OR_RETURN(e.total, IntField(artifact.results, "total"));
    ASSIGN_OR_RETURN(e.accuracy, NumberField(artifact.results, "accuracy"));
    return Ok();
  };
  if (Status status = read(); !status.ok()) return Error{ErrorCode::kCorrupt, "input '" + role + "': " + status.error().message};
  auto blob = artifact.blobs.find("correct");
  if (blob == artifact.blobs.end()) return Error{ErrorCode::kCorrupt, "input '" + role + "': it has no blob 'correct'"};
  ASSIGN_OR_RETURN(storage::BlobView view, context.environment.blobs.Get(blob->second.digest));
  e.bitmap = view.text();
  if (e.total <= 0 || e.bitmap.size() != static_cast<size_t>((e.total + 7) / 8)) {
    return Error{ErrorCode::kCorrupt, "input '" + role + "': its blob 'correct' is not of " + std::to_string(e.total) + " samples"};
  }
  return e;
}

Result<Json> Compare(const Evaluation& first, const Evaluation& second) {
  if (first.split != second.split || first.total != second.total) {
    return Error{ErrorCode::kInvalid, "the evaluations are of different samples: " + first.split + " (" + std::to_string(first.total) + ") and " +
                                          second.split + " (" + std::to_string(second.total) + ")"};
  }
  PairedCounts counts = CountPairs(first.bitmap, second.bitmap, first.total);
  Interval interval = PairedInterval(counts, first.total);
  return Json{{"split", first.split},
              {"total", first.total},
              {"first_accuracy", first.accuracy},
              {"second_accuracy", second.accuracy},
              {"only_first", counts.only_first},
              {"only_second", counts.only_second},
              {"difference", 100.0 * static_cast<double>(counts.only_second - counts.only_first) / static_cast<double>(first.total)},
              {"interval", {interval.low, interval.high}}};
}

}  // namespace

Result<StepOutput> RunChoose(StepContext& context) {
  ASSIGN_OR_RETURN(std::string rule, StringField(context.spec.params, "rule"));
  if (rule != "better") return Error{ErrorCode::kInvalid, "params: field 'rule': '" + rule + "' is not better"};
  std::map<std::string, Evaluation> evaluations;
  for (const char* role : {"first", "second"}) {
    ASSIGN_OR_RETURN(evaluations[role], InputEvaluation(context, std::string(role) + "_evaluation"));
    if (evaluations[role].model != context.assignment.inputs.at(role).hex()) {
      return Error{ErrorCode::kInvalid, "input '" + std::string(role) + "_evaluation' is of another checkpoint than '" + role + "'"};
    }
  }
  // Equal accuracy: what was there first stays.
  const std::string chosen = evaluations["second"].correct > evaluations["first"].correct ? "second" : "first";
  ASSIGN_OR_RETURN(Json comparison, Compare(evaluations["first"], evaluations["second"]));
  ASSIGN_OR_RETURN(storage::Artifact artifact, InputArtifact(context, chosen, "checkpoint"));
  StepOutput output{artifact.kind, std::move(artifact.blobs), std::move(artifact.results), std::nullopt};
  output.results["choice"] = {{"chosen", chosen}, {"comparison", std::move(comparison)}};
  return output;
}

Result<StepOutput> RunAdopt(StepContext& context) {
  ASSIGN_OR_RETURN(Digest digest, DigestField(context.spec.params, "artifact"));
  auto artifact = storage::GetArtifact(context.environment.blobs, digest);
  if (!artifact.ok()) return artifact.error().With("params: field 'artifact'");
  if (artifact->kind != "checkpoint") {
    return Error{ErrorCode::kInvalid, "params: field 'artifact': " + digest.brief() + " is of kind '" + artifact->kind + "', not checkpoint"};
  }
  return StepOutput{artifact->kind, std::move(artifact->blobs), std::move(artifact->results), std::nullopt};
}

Result<StepOutput> RunCompare(StepContext& context) {
  ASSIGN_OR_RETURN(Evaluation first, InputEvaluation(context, "first"));
  ASSIGN_OR_RETURN(Evaluation second, InputEvaluation(context, "second"));
  StepOutput output;
  output.kind = "comparison";
  ASSIGN_OR_RETURN(output.results, Compare(first, second));
  return output;
}

}  // namespace pare::runner
