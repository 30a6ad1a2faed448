// logits and distill: a teacher's answers computed once, and training towards them (docs/formats.md, "Step parameters").
#include <algorithm>
#include <cmath>

#include "methods/distillation.h"
#include "model/finite.h"
#include "model/initialize.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/step_train.h"

namespace pare::runner {
namespace {

constexpr const char* kBlob = "logits";

// As the recipe calls it; hints change no result.
std::string TeacherName(const StepContext& context, const std::string& role) {
  const Json& hints = context.assignment.hints;
  if (hints.is_object() && hints.value("teacher", Json()).is_string()) return hints["teacher"].get<std::string>();
  auto input = context.assignment.inputs.find(role);
  return input == context.assignment.inputs.end() ? role : input->second.brief();
}

// The training samples, without those of validation.
std::vector<uint32_t> TrainRows(const StepData& data) {
  return data::CutValidation(data.dataset->train.labels.size(), data.spec.validation, data.spec.split_seed).train;
}

Status CheckValidation(const StepData& data) {
  int64_t count = data.dataset->train.labels.size();
  if (data.spec.validation < count) return Ok();
  return Error{ErrorCode::kInvalid, "data: validation: " + std::to_string(data.spec.validation) + " of " + std::to_string(count) +
                                        " training samples leaves none to teach with"};
}

// A sick weight is named before any sample is answered: what its answers would say is less.
Status CheckTeacherWeights(const model::TensorMap& tensors, const std::string& teacher) {
  Status finite = model::CheckFinite(tensors);
  if (finite.ok()) return finite;
  return Error{ErrorCode::kDiverged, "teacher " + teacher + ": " + finite.error().message +
                                         ": its training diverged or it is damaged; train it again with a lower learning rate, or name another teacher"};
}

void ReportLogits(StepContext& context, size_t done, size_t all, Millis& last) {
  Millis now = context.environment.clock.Monotonic();
  if (done < all && now - last < kProgressInterval) return;
  last = now;
  context.hooks.Progress({{"epoch", static_cast<double>(done) / static_cast<double>(all)}, {"epochs", 1}});
}

// Answers to `rows`, in their order. No snapshot: a pass costs less than a third of an epoch, and starting it again gives
// the same bytes.
Result<std::vector<float>> Answers(StepContext& context, engine::Network& network, const StepData& data, std::span<const uint32_t> rows) {
  auto classes = static_cast<size_t>(network.classes());
  std::vector<float> values(rows.size() * classes);
  Millis last = context.environment.clock.Monotonic();
  for (size_t first = 0; first < rows.size(); first += kEvaluationBatch) {
    if (context.hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped before training sample " + std::to_string(first)};
    std::span<const uint32_t> batch = rows.subspan(first, std::min<size_t>(kEvaluationBatch, rows.size() - first));
    std::span<float> out = std::span(values).subspan(first * classes, batch.size() * classes);
    network.Observe(SamplesOf(data.dataset->train, data.spec, batch), static_cast<int64_t>(batch.size()), out, {});
    auto bad = std::find_if(out.begin(), out.end(), [](float v) { return !std::isfinite(v); });
    if (bad != out.end()) return TeacherNotFinite(TeacherName(context, "model"), batch[static_cast<size_t>(bad - out.begin()) / classes]);
    ReportLogits(context, first + batch.size(), rows.size(), last);
  }
  return values;
}

Result<std::unique_ptr<engine::Network>> TeacherNetwork(StepContext& context, const storage::Checkpoint& checkpoint, engine::NetworkOptions options) {
  options.device = context.environment.device;
  options.threads = context.environment.threads;
  return engine::Network::Create(checkpoint.graph, checkpoint.tensors, options);
}

Result<std::unique_ptr<Teacher>> StoredTeacher(StepContext& context, const StepData& data, const DistillOptions& options, int64_t classes) {
  ASSIGN_OR_RETURN(storage::BlobView view, InputBlob(context, "logits", "logits", kBlob));
  if (data.spec.flip || data.spec.shift != 0) {
    return Error{ErrorCode::kInvalid, "input 'logits': they are of samples that were not augmented; with augmentation the teacher runs in the loop"};
  }
  ASSIGN_OR_RETURN(Logits logits, Logits::Decode(view.text()));
  return NewCachedTeacher(std::move(logits), TrainRows(data), classes, options);
}

// The teacher runs beside the student, perhaps compared at inner nodes too: `plan` gets the graph and the taps for these.
Status TeachInTheLoop(StepContext& context, const DistillOptions& options, TrainPlan& plan) {
  ASSIGN_OR_RETURN(auto teacher, InputCheckpoint(context, "teacher"));
  std::string name = TeacherName(context, "teacher");
  TRY(methods::CheckTeacher(plan.from.graph, teacher->checkpoint.graph, name));
  TRY(CheckTeacherWeights(teacher->checkpoint.tensors, name));
  engine::NetworkOptions network_options;
  network_options.shards = static_cast<int>(plan.options.shards);
  network_options.max_batch = plan.options.batch_size;
  storage::Checkpoint network_of = teacher->checkpoint;  // tensors are shared
  if (!options.match.empty()) {
    ASSIGN_OR_RETURN(methods::Matching matching, methods::MatchNodes(plan.from.graph, teacher->checkpoint.graph, options.match));
    ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(matching.student));
    for (auto& [tensor, values] : model::InitializeWeights(matching.student, info, context.spec.seed)) plan.weights.emplace(tensor, values);
    plan.graph = std::move(matching.student);
    plan.taps = std::move(matching.student_taps);
    network_options.taps = std::move(matching.teacher_taps);
    network_of.graph = std::move(matching.teacher);
  }
  ASSIGN_OR_RETURN(auto network, TeacherNetwork(context, network_of, network_options));
  plan.teacher = NewLoopTeacher(std::move(network), name, options);
  return Ok();
}

}  // namespace

Result<StepOutput> RunLogits(StepContext& context) {
  ASSIGN_OR_RETURN(std::string split, StringField(context.spec.params, "split"));
  if (split != "train") return Error{ErrorCode::kInvalid, "params: field 'split': '" + split + "' is not train"};
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  const storage::Checkpoint& teacher = input->checkpoint;
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(teacher.graph));
  TRY(CheckFits(teacher.graph, info, *data.dataset, data.spec));
  TRY(CheckValidation(data));
  TRY(CheckTeacherWeights(teacher.tensors, TeacherName(context, "model")));
  engine::NetworkOptions options;
  options.shards = 2;  // parallel over samples, as evaluations are
  options.max_batch = kEvaluationBatch;
  ASSIGN_OR_RETURN(auto network, TeacherNetwork(context, teacher, options));
  std::vector<uint32_t> rows = TrainRows(data);
  ASSIGN_OR_RETURN(std::vector<float> values, Answers(context, *network, data, rows));
  Logits logits(values, network->classes());
  StepOutput output;
  output.kind = "logits";
  ASSIGN_OR_RETURN(storage::BlobReference blob, PutBlob(context, logits.Encode()));
  output.blobs.emplace(kBlob, blob);
  output.results = {{"split", split}, {"samples", logits.samples()}, {"classes", logits.classes()}, {"bytes", blob.bytes},
                    {"model", context.assignment.inputs.at("model").hex()}};
  return output;
}

Result<StepOutput> RunDistill(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(TrainPlan plan, PlanTraining(context, input->checkpoint));
  ASSIGN_OR_RETURN(DistillOptions options, DistillOptionsFromJson(context.spec.params));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  TRY(CheckValidation(data));
  bool stored = context.assignment.inputs.contains("logits");
  if (stored == context.assignment.inputs.contains("teacher")) {
    return Error{ErrorCode::kInvalid, "a distill step has exactly one of the inputs 'logits' and 'teacher'"};
  }
  if (stored && !options.match.empty()) {
    return Error{ErrorCode::kInvalid, "params: field 'match': matching inner nodes needs the input 'teacher', not 'logits'"};
  }
  if (stored) {
    ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(plan.from.graph));
    const model::Shape& output = info.shapes[static_cast<size_t>(plan.from.graph.IndexOf(plan.from.graph.output))];
    ASSIGN_OR_RETURN(plan.teacher, StoredTeacher(context, data, options, output.back()));
  } else {
    TRY(TeachInTheLoop(context, options, plan));
  }
  return TrainAndStore(context, data, std::move(plan));
}

}  // namespace pare::runner
