#include "worker/runner/steps.h"

#include "model/counts.h"

namespace pare::runner {
namespace {

constexpr StepKind kKinds[] = {
    {"initialize", RunInitialize}, {"import", RunImport}, {"train", RunTrain},
    {"retrain", RunTrain},         {"prune", RunPrune},   {"evaluate", RunEvaluate},
    {"logits", RunLogits},         {"distill", RunDistill}, {"choose", RunChoose},
    {"adopt", RunAdopt},           {"compare", RunCompare}, {"sensitivity", RunSensitivity},
    {"spectrum", RunSpectrum},     {"low_rank", RunLowRank}, {"lora", RunLora},
    {"qlora", RunQlora},           {"quantize", RunQuantize}, {"measure", RunMeasure},
};

}  // namespace

std::span<const StepKind> StepKinds() { return kKinds; }

Result<StepOutput> RunStep(StepContext& context) {
  std::string known;
  for (const StepKind& kind : StepKinds()) {
    if (kind.name == context.spec.kind) return kind.run(context);
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  if (methods::FindMethod(context.spec.kind) != nullptr) return RunRewrite(context);
  for (const methods::Method& method : methods::Methods()) {
    if (known.find(method.name) == known.npos) known += ", " + std::string(method.name);
  }
  return Error{ErrorCode::kInvalid, "field 'kind': '" + context.spec.kind + "' is not one of " + known};
}

Result<std::shared_ptr<const LoadedCheckpoint>> InputCheckpoint(StepContext& context, const std::string& role) {
  auto input = context.assignment.inputs.find(role);
  if (input == context.assignment.inputs.end()) {
    return Error{ErrorCode::kInvalid, "input '" + role + "' is missing"};
  }
  auto loaded = context.environment.cache.Checkpoint(input->second);
  if (!loaded.ok()) return loaded.error().With("input '" + role + "'");
  return loaded;
}

Result<storage::Artifact> InputArtifact(StepContext& context, const std::string& role, const std::string& kind) {
  auto input = context.assignment.inputs.find(role);
  if (input == context.assignment.inputs.end()) return Error{ErrorCode::kInvalid, "input '" + role + "' is missing"};
  auto artifact = storage::GetArtifact(context.environment.blobs, input->second);
  if (!artifact.ok()) return artifact.error().With("input '" + role + "'");
  if (artifact->kind != kind) {
    return Error{ErrorCode::kInvalid, "input '" + role + "': artifact " + input->second.brief() + " is of kind '" + artifact->kind + "', a " + kind + " is needed"};
  }
  return artifact;
}

Result<storage::BlobView> InputBlob(StepContext& context, const std::string& role, const std::string& kind, const std::string& name) {
  ASSIGN_OR_RETURN(storage::Artifact artifact, InputArtifact(context, role, kind));
  auto blob = artifact.blobs.find(name);
  if (blob == artifact.blobs.end()) return Error{ErrorCode::kCorrupt, "input '" + role + "': it has no blob '" + name + "'"};
  return context.environment.blobs.Get(blob->second.digest);
}

methods::Model ModelOf(storage::Checkpoint c) { return {std::move(c.graph), std::move(c.tensors), std::move(c.masks), std::move(c.notes)}; }
storage::Checkpoint CheckpointOf(methods::Model m) { return {std::move(m.graph), std::move(m.tensors), std::move(m.masks), std::move(m.notes)}; }

Result<StepData> LoadData(StepContext& context) {
  StepData data;
  Json spec = context.spec.data.Tree();
  if (!spec.is_object() || !context.assignment.data.is_object()) {
    return Error{ErrorCode::kInvalid, "field 'data': a step of kind " + context.spec.kind + " needs a dataset"};
  }
  ASSIGN_OR_RETURN(data.spec, data::DataSpecFromJson(spec));
  ASSIGN_OR_RETURN(data::DataInfo info, data::DataInfoFromJson(context.assignment.data));
  auto dataset = context.environment.cache.Dataset(info, data.spec.fingerprint);
  if (!dataset.ok()) return dataset.error().With("data");
  data.dataset = *dataset;
  return data;
}

Result<storage::BlobReference> PutBlob(StepContext& context, std::string_view bytes) {
  ASSIGN_OR_RETURN(Digest digest, context.environment.blobs.Put(bytes));
  return storage::BlobReference{digest, static_cast<int64_t>(bytes.size())};
}

Result<StepOutput> MakeCheckpoint(StepContext& context, storage::Checkpoint checkpoint, const std::vector<EpochRecord>* history,
                                  const storage::Checkpoint* whole) {
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  // Every blob of the checkpoint is one of the artifact: what a manifest names is what must stay in a store.
  ASSIGN_OR_RETURN(storage::StoredCheckpoint stored, storage::PutCheckpoint(context.environment.blobs, checkpoint));
  StepOutput output;
  output.kind = "checkpoint";
  output.results = model::ToJson(model::Summarize(checkpoint.graph, info, (whole ? whole : &checkpoint)->tensors, (whole ? whole : &checkpoint)->masks));
  output.results["checkpoint_bytes"] = stored.bytes;
  if (history != nullptr) {
    Json epochs = Json::array();
    for (const EpochRecord& record : *history) epochs.push_back(ToJson(record));
    output.results["training"] = {{"epochs", history->size()}, {"history", std::move(epochs)}};
  }
  output.blobs.emplace("checkpoint", stored.file);
  for (const auto& [name, blob] : stored.shared) output.blobs.emplace("tensor/" + name, blob);
  output.checkpoint = std::move(checkpoint);
  return output;
}

}  // namespace pare::runner
