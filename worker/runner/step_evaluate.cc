// evaluate: accuracy of a checkpoint on a split, with the bitmap that lets two models be compared sample by sample.
#include <cmath>
#include <numeric>

#include "worker/runner/evaluation.h"
#include "worker/runner/steps.h"

namespace pare::runner {
namespace {

struct Rows {
  const data::Split* split = nullptr;
  std::vector<uint32_t> rows;
};

Result<Rows> RowsOf(const StepData& data, const std::string& split) {
  Rows rows;
  if (split == "test") {
    rows.split = &data.dataset->test;
    rows.rows.resize(static_cast<size_t>(rows.split->labels.size()));
    std::iota(rows.rows.begin(), rows.rows.end(), 0u);
  } else if (split == "validation") {
    rows.split = &data.dataset->train;
    int64_t count = rows.split->labels.size();
    if (data.spec.validation > count) return Error{ErrorCode::kInvalid, "data: validation is larger than the training split"};
    rows.rows = data::CutValidation(count, data.spec.validation, data.spec.split_seed).validation;
  } else {
    return Error{ErrorCode::kInvalid, "params: field 'split': '" + split + "' is not one of validation, test"};
  }
  if (rows.rows.empty()) {
    return Error{ErrorCode::kInvalid, "params: field 'split': the " + split + " split is empty; set data.validation or use test"};
  }
  return rows;
}

}  // namespace

Result<StepOutput> RunEvaluate(StepContext& context) {
  ASSIGN_OR_RETURN(std::string split, StringField(context.spec.params, "split"));
  ASSIGN_OR_RETURN(auto input, InputCheckpoint(context, "model"));
  ASSIGN_OR_RETURN(StepData data, LoadData(context));
  const storage::Checkpoint& checkpoint = input->checkpoint;
  ASSIGN_OR_RETURN(model::GraphInfo info, model::Analyze(checkpoint.graph));
  TRY(CheckFits(checkpoint.graph, info, *data.dataset, data.spec));
  ASSIGN_OR_RETURN(Rows rows, RowsOf(data, split));
  engine::NetworkOptions options;
  options.device = context.environment.device;
  options.threads = context.environment.threads;
  // Parallel over samples; shards do not change a sample's value, and losses are summed per batch in a fixed order.
  options.shards = 2;
  options.max_batch = kEvaluationBatch;
  ASSIGN_OR_RETURN(auto network, engine::Network::Create(checkpoint.graph, checkpoint.tensors, options));
  std::string bitmap;
  EvaluationCounts counts = EvaluateRows(*network, *rows.split, data.spec, rows.rows, &bitmap);
  if (!std::isfinite(counts.loss)) {
    return Error{ErrorCode::kDiverged, "evaluate: the loss of checkpoint " + context.assignment.inputs.at("model").brief() +
                                           " on the " + split + " split is not finite"};
  }
  StepOutput output;
  output.kind = "evaluation";
  ASSIGN_OR_RETURN(storage::BlobReference blob, PutBlob(context, bitmap));
  output.blobs.emplace("correct", blob);
  Interval interval = WilsonInterval(counts.correct, counts.total);
  Json summary = Json::object();
  for (const char* field : {"parameters", "parameters_nonzero", "multiply_adds", "multiply_adds_nonzero",
                            "checkpoint_bytes", "sparsity"}) {
    summary[field] = input->artifact.results.value(field, Json());
  }
  output.results = {{"split", split},
                    {"correct", counts.correct},
                    {"total", counts.total},
                    {"accuracy", Percent(counts.correct, counts.total)},
                    {"interval", {interval.low, interval.high}},
                    {"loss", counts.loss},
                    {"model", context.assignment.inputs.at("model").hex()},
                    {"summary", std::move(summary)}};
  return output;
}

}  // namespace pare::runner
