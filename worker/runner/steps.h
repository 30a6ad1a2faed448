// The step kinds a runner executes, in one explicit table; the methods of methods/registry.h stand behind it. Each turns a spec
// and its inputs into an artifact's content; it stores the blobs, never the manifest. promote is decided by the coordinator
// (recipes/planner.h), not here.
//
// One thread. Errors: kInvalid (spec, data or model: names the field), kNotFound/kCorrupt (an input), kDiverged, kStopped
// (context.stopped holds the snapshot, if any).
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/clock.h"
#include "methods/registry.h"
#include "recipes/step.h"
#include "storage/artifact.h"
#include "storage/blob_store.h"
#include "worker/runner/hooks.h"
#include "worker/runner/input_cache.h"
#include "worker/runner/meters.h"
#include "worker/runner/snapshot.h"
#include "worker/runner/snapshot_writer.h"
#include "worker/step_runner.h"

namespace pare::runner {

// What a runner has for all its steps.
struct Environment {
  storage::BlobStore& blobs;
  InputCache& cache;
  const Clock& clock;
  int threads = 1;
  std::string device = "cpu";
  Meters meters = SystemMeters();
  Millis firsts_patience{5'000};  // what the others of a gang leave the first one to finish (worker/runner/gang.h)
};

// One step.
struct StepContext {
  const Environment& environment;
  const worker::Assignment& assignment;
  const recipes::StepSpec& spec;
  StepHooks& hooks;
  SnapshotWriter& snapshots;
  std::optional<StoredSnapshot> stopped;
};

struct StepOutput {
  std::string kind;  // of the artifact
  std::map<std::string, storage::BlobReference> blobs;
  Json results;
  std::optional<storage::Checkpoint> checkpoint;  // of a checkpoint artifact, for the cache
};

struct StepKind {
  std::string_view name;
  Result<StepOutput> (*run)(StepContext&);
};
std::span<const StepKind> StepKinds();

// The step's kind is in the table, or the name of a method (methods/registry.h): RunRewrite. kInvalid names the known ones.
Result<StepOutput> RunStep(StepContext& context);

Result<StepOutput> RunInitialize(StepContext& context);
Result<StepOutput> RunImport(StepContext& context);
Result<StepOutput> RunTrain(StepContext& context);  // train and retrain
Result<StepOutput> RunPrune(StepContext& context);
Result<StepOutput> RunGradualPrune(StepContext& context);  // what RunPrune does for schedules over training
Result<StepOutput> RunEvaluate(StepContext& context);
Result<StepOutput> RunSensitivity(StepContext& context);
// Input "model" → the method of the step's name → checkpoint; what the method says of layers is `report` in the results.
Result<StepOutput> RunRewrite(StepContext& context);
Result<StepOutput> RunSpectrum(StepContext& context);
Result<StepOutput> RunLowRank(StepContext& context);
Result<StepOutput> RunLora(StepContext& context);
Result<StepOutput> RunQlora(StepContext& context);
Result<StepOutput> RunQuantize(StepContext& context);
Result<StepOutput> RunMeasure(StepContext& context);
Result<StepOutput> RunLogits(StepContext& context);
Result<StepOutput> RunDistill(StepContext& context);
Result<StepOutput> RunChoose(StepContext& context);
Result<StepOutput> RunAdopt(StepContext& context);
Result<StepOutput> RunCompare(StepContext& context);

// Shared by the above.
Result<std::shared_ptr<const LoadedCheckpoint>> InputCheckpoint(StepContext& context, const std::string& role);
// The manifest of an input. kInvalid: the input is missing, or an artifact of another kind.
Result<storage::Artifact> InputArtifact(StepContext& context, const std::string& role, const std::string& kind);
// A blob of it. kCorrupt: it has none of that name.
Result<storage::BlobView> InputBlob(StepContext& context, const std::string& role, const std::string& kind, const std::string& blob);
// A checkpoint is what a method works on, stored.
methods::Model ModelOf(storage::Checkpoint checkpoint);
storage::Checkpoint CheckpointOf(methods::Model model);
struct StepData {
  std::shared_ptr<const data::Dataset> dataset;
  data::DataSpec spec;
};
Result<StepData> LoadData(StepContext& context);
Result<storage::BlobReference> PutBlob(StepContext& context, std::string_view bytes);
// Encodes, stores and summarizes; history: of the training, nullptr if there was none.
// Of a layer (storage/layered.h) the summary is that of the `whole` network.
Result<StepOutput> MakeCheckpoint(StepContext& context, storage::Checkpoint checkpoint, const std::vector<EpochRecord>* history,
                                  const storage::Checkpoint* whole = nullptr);

}  // namespace pare::runner
