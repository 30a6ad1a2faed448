#include "tests/coordinator/played_steps.h"

#include <gtest/gtest.h>

#include <cmath>

#include "storage/artifact.h"

namespace pare::coordinator {
namespace {

// Results as docs/formats.md has them. Bytes follow from the step's name alone, so that they differ between candidates.
Json CheckpointResults(double sparsity) {
  auto nonzero = static_cast<int64_t>(std::lround(1000 * (1 - sparsity)));
  return {{"parameters", 1000}, {"parameters_nonzero", nonzero}, {"multiply_adds", 900}, {"multiply_adds_nonzero", nonzero - 100},
          {"checkpoint_bytes", 4 * nonzero}, {"sparsity", {{"pruned_layers", sparsity}, {"weights", sparsity}, {"parameters", sparsity}}}};
}

Json EvaluationResults(const std::string& split, double accuracy, const Digest& model, Json summary) {
  int64_t total = 5000, correct = static_cast<int64_t>(accuracy * 50);
  return {{"split", split}, {"correct", correct}, {"total", total}, {"accuracy", accuracy}, {"interval", {accuracy - 0.8, accuracy + 0.8}},
          {"loss", 0.3}, {"model", model.hex()}, {"summary", std::move(summary)}};
}

// As if the second had got 50 of 10,000 samples more right.
Json PlayComparison(storage::BlobStore& blobs, const worker::Assignment& assignment) {
  Json results = {{"split", "test"}, {"total", 10000}, {"first_accuracy", 89.0}, {"second_accuracy", 89.5}, {"only_first", 100}, {"only_second", 150},
                  {"difference", 0.5}, {"interval", {0.19, 0.81}}};
  storage::Artifact artifact{.kind = "comparison", .step = assignment.key, .results = std::move(results)};
  EXPECT_TRUE(storage::PutArtifact(blobs, artifact).ok());
  return storage::ToJson(artifact);
}

}  // namespace

Json PlayStep(storage::BlobStore& blobs, const worker::Assignment& assignment, double accuracy) {
  if (assignment.spec["kind"] == "compare") return PlayComparison(blobs, assignment);
  const Json& params = assignment.spec["params"];
  bool evaluation = assignment.spec["kind"] == "evaluate";
  std::string bytes = "bytes of " + assignment.key.hex();
  storage::Artifact artifact{.kind = evaluation ? "evaluation" : "checkpoint", .step = assignment.key};
  artifact.blobs[evaluation ? "correct" : "checkpoint"] = {*blobs.Put(bytes), static_cast<int64_t>(bytes.size())};
  double sparsity = 0;
  Json summary;
  auto input = assignment.inputs.find("model");
  if (input != assignment.inputs.end()) {
    summary = storage::GetArtifact(blobs, input->second)->results;
    sparsity = summary["sparsity"]["pruned_layers"];
  }
  if (params.contains("sparsity")) sparsity = params["sparsity"];
  if (params.contains("fraction_of_remaining")) sparsity = 1 - (1 - sparsity) * (1 - params["fraction_of_remaining"].get<double>());
  artifact.results = evaluation ? EvaluationResults(params["split"], accuracy, input->second, std::move(summary)) : CheckpointResults(sparsity);
  EXPECT_TRUE(storage::PutArtifact(blobs, artifact).ok());
  return storage::ToJson(artifact);
}

}  // namespace pare::coordinator
