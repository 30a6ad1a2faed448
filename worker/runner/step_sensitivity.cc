// sensitivity: accuracy on validation samples with one weight at a time made worse (methods/sensitivity.h). Results, artifact
// "table": docs/formats.md.
#include <cmath>

#include "methods/sensitivity.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/steps.h"

namespace pare::runner {
namespace {

class Scan {
 public:
  Scan(StepContext& context, const storage::Checkpoint& checkpoint, const StepData& data, std::vector<uint32_t> rows, int64_t settings)
      : context_(context), checkpoint_(checkpoint), data_(data), rows_(std::move(rows)), settings_(settings) {}

  Status Open() {
    engine::NetworkOptions options;
    options.device = context_.environment.device;
    options.threads = context_.environment.threads;
    options.shards = 2;  // as in evaluate
    options.max_batch = kEvaluationBatch;
    ASSIGN_OR_RETURN(network_, engine::Network::Create(checkpoint_.graph, checkpoint_.tensors, options));
    return Ok();
  }

  Result<EvaluationCounts> With(const std::string& name, const model::Tensor& weight) {
    if (context_.hooks.StopRequested()) return Error{ErrorCode::kStopped, "stopped while scanning; it starts afresh"};
    model::TensorMap tensors = checkpoint_.tensors;
    tensors.insert_or_assign(name, weight);
    TRY(network_->SetWeights(tensors));
    EvaluationCounts counts = EvaluateRows(*network_, data_.dataset->train, data_.spec, rows_, nullptr);
    context_.hooks.Progress({{"scanned", ++done_}, {"settings", settings_}, {"accuracy", Percent(counts.correct, counts.total)}});
    return counts;
  }

 private:
  StepContext& context_;
  const storage::Checkpoint& checkpoint_;
  const StepData& data_;
  std::vector<uint32_t> rows_;
  int64_t settings_, done_ = 0;
  std::unique_ptr<engine::Network> network_;
};

Result<Json> Line(Scan& scan, const std::string& tensor, const char* what, Json value, const model::Tensor& weight, double baseline) {
  ASSIGN_OR_RETURN(EvaluationCounts counts, scan.With(tensor, weight));
  double accuracy = Percent(counts.correct, counts.total);
  Json line = {{"tensor", tensor}, {"what", what}, {"value", std::move(value)}, {"accuracy", accuracy}, {"drop", baseline - accuracy}};
  line["loss"] = std::isfinite(counts.loss) ? Json(counts.loss) : Json();
  return line;
}

}  // namespace

Result<StepOutput> RunSensitivity(StepContext& context) {
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  const storage::Checkpoint& checkpoint = input->checkpoint;
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  ASSIGN_OR_RETURN(methods::SensitivityOptions options, methods::SensitivityOptionsFromJson(context.spec.params, info));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  TRY(CheckFits(checkpoint.graph, info, *data.dataset, data.spec));
  std::vector<uint32_t> rows = data::CutValidation(data.dataset->train.labels.size(), data.spec.validation, data.spec.split_seed).validation;
  if (rows.empty()) return Error{ErrorCode::kInvalid, "sensitivity: the validation split is empty; set data.validation"};
  if (options.samples > 0 && options.samples < static_cast<int64_t>(rows.size())) rows.resize(static_cast<size_t>(options.samples));
  auto settings = static_cast<int64_t>(options.tensors.size() * (options.sparsities.size() + options.energies.size() + options.bits.size()));
  Scan scan(context, checkpoint, data, std::move(rows), settings);
  TRY(scan.Open());
  ASSIGN_OR_RETURN(EvaluationCounts base, scan.With(options.tensors[0], checkpoint.tensors.at(options.tensors[0])));
  double baseline = Percent(base.correct, base.total);
  Json lines = Json::array();
  for (const std::string& name : options.tensors) {
    const model::Tensor& weight = checkpoint.tensors.at(name);
    auto mask = checkpoint.masks.find(name);
    for (double s : options.sparsities) {
      ASSIGN_OR_RETURN(Json line, Line(scan, name, "sparsity", s, methods::Sparsified(weight, s, mask == checkpoint.masks.end() ? nullptr : &mask->second), baseline));
      lines.push_back(std::move(line));
    }
    std::vector<methods::Truncated> truncated = options.energies.empty() ? std::vector<methods::Truncated>() : methods::TruncatedTo(weight, options.energies);
    for (size_t k = 0; k < truncated.size(); ++k) {
      ASSIGN_OR_RETURN(Json line, Line(scan, name, "energy", options.energies[k], truncated[k].weight, baseline));
      line["rank"] = truncated[k].rank;
      lines.push_back(std::move(line));
    }
    for (int64_t b : options.bits) {
      ASSIGN_OR_RETURN(Json line, Line(scan, name, "bits", b, methods::Rounded(weight, b), baseline));
      lines.push_back(std::move(line));
    }
  }
  Interval interval = WilsonInterval(base.correct, base.total);
  StepOutput output;
  output.kind = "table";
  output.results = {{"table", "sensitivity"}, {"model", context.assignment.inputs.at("model").hex()}, {"samples", base.total}, {"accuracy", baseline},
                    {"interval", {interval.low, interval.high}}, {"rows", std::move(lines)}};
  return output;
}

}  // namespace pare::runner
