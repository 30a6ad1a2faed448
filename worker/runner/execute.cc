#include "worker/runner/execute.h"

#include <new>

#include "model/architectures.h"
#include "model/initialize.h"
#include "worker/engine/network.h"

namespace pare::runner {
namespace {

struct Failure {
  std::string error_class;
  std::string message;
};

std::string DeviceClass(const std::string& device) { return device.substr(0, device.find(':')); }

Result<StepOutput> RunKind(StepContext& context) {
  if (context.spec.device != DeviceClass(context.environment.device)) {
    return Error{ErrorCode::kInvalid, "the step wants device '" + context.spec.device + "', this runner has '" +
                                          context.environment.device + "'"};
  }
  return RunStep(context);
}

struct Finished {
  Digest artifact;
  Json manifest;
};

Result<Finished> Run(StepContext& context) {
  ASSIGN_OR_RETURN(StepOutput output, RunKind(context));
  storage::Artifact artifact{output.kind, context.assignment.key, std::move(output.blobs), std::move(output.results)};
  ASSIGN_OR_RETURN(Digest digest, storage::PutArtifact(context.environment.blobs, artifact));
  Finished finished{digest, storage::ToJson(artifact)};
  if (output.checkpoint) {
    context.environment.cache.Remember(digest, {std::move(artifact), *std::move(output.checkpoint)});
  }
  return finished;
}

bool IsAllocationFailure(std::string_view message) {
  return message.find("can't allocate memory") != message.npos || message.find("out of memory") != message.npos;
}

// The event, less busy_ms. Every exception ends here.
worker::RunnerEvent Execute(const worker::Assignment& assignment, const Environment& environment, StepHooks& hooks) {
  try {
    Result<recipes::StepSpec> spec = recipes::StepSpecFromJson(assignment.spec);
    if (!spec.ok()) return worker::StepFailed{"bad_input", "step spec: " + spec.error().message};
    if (recipes::KeyOf(*spec) != assignment.key) {
      return worker::StepFailed{"bad_input", "the spec's key is " + recipes::KeyOf(*spec).brief() + ", the assignment's is " +
                                                 assignment.key.brief() + ": coordinator and runner are of different versions"};
    }
    SnapshotWriter snapshots(environment.blobs);
    StepContext context{environment, assignment, *spec, hooks, snapshots, {}};
    Result<Finished> finished = Run(context);
    if (finished.ok()) return worker::StepDone{finished->artifact, std::move(finished->manifest)};
    if (finished.error().code == ErrorCode::kStopped) {
      worker::StepStopped stopped;
      stopped.position = Json::object();
      if (context.stopped) stopped.snapshot = context.stopped->blob, stopped.position = context.stopped->position;
      return stopped;
    }
    return worker::StepFailed{ErrorClassOf(finished.error().code), finished.error().message};
  } catch (const std::bad_alloc&) {
    return worker::StepFailed{"out_of_memory", "the runner has no memory left for this step"};
  } catch (const std::exception& e) {
    std::string message = e.what();
    return worker::StepFailed{IsAllocationFailure(message) ? "out_of_memory" : "internal", message};
  }
}

}  // namespace

std::string ErrorClassOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
    case ErrorCode::kVersion:
      return "bad_input";
    case ErrorCode::kDiverged: return "diverged";
    case ErrorCode::kNoSpace: return "no_space";
    case ErrorCode::kCorrupt:
    case ErrorCode::kNotFound:
      return "corrupt";
    default: return "internal";
  }
}

worker::RunnerEvent ExecuteStep(const worker::Assignment& assignment, const Environment& environment, StepHooks& hooks) {
  Millis began = environment.clock.Monotonic();
  worker::RunnerEvent event = Execute(assignment, environment, hooks);
  int64_t busy_ms = (environment.clock.Monotonic() - began).count();
  if (auto* done = std::get_if<worker::StepDone>(&event)) done->busy_ms = busy_ms;
  if (auto* failed = std::get_if<worker::StepFailed>(&event)) failed->busy_ms = busy_ms;
  if (auto* stopped = std::get_if<worker::StepStopped>(&event)) stopped->busy_ms = busy_ms;
  return event;
}

Status WarmUp(const std::string& device, int threads) {
  ASSIGN_OR_RETURN(model::Graph graph, model::BuildArchitecture("mlp", {{"hidden", {16}}}, {1, 4, 4}, 4));
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(graph));
  engine::NetworkOptions options;
  options.device = device;
  options.threads = threads;
  options.shards = threads;
  options.max_batch = 32;
  try {
    ASSIGN_OR_RETURN(auto network, engine::Network::Create(graph, model::InitializeWeights(graph, info, 0), options));
    std::vector<float> samples(32 * 16, 0.5f);
    std::vector<int64_t> labels(32, 1);
    network->TrainBatch(samples, labels, {}, {});
  } catch (const std::exception& e) {
    return Error{ErrorCode::kInternal, std::string("warm-up on ") + device + ": " + e.what()};
  }
  return Ok();
}

}  // namespace pare::runner
