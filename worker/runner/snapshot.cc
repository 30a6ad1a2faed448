#include "worker/runner/snapshot.h"

#include "model/safetensors.h"

namespace pare::runner {
namespace {

constexpr int64_t kFormat = 1;
constexpr std::string_view kWeight = "weight/", kMask = "mask/", kOptimizer = "optimizer/", kSum = "sum/";

model::Tensor Bytes(std::string_view text) {
  std::span bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  return model::Tensor::Of<uint8_t>(model::DType::kU8, {static_cast<int64_t>(text.size())}, bytes);
}

Result<EpochRecord> RecordFromJson(const Json& json) {
  EpochRecord r;
  ASSIGN_OR_RETURN(r.epoch, IntField(json, "epoch"));
  ASSIGN_OR_RETURN(r.loss, NumberField(json, "loss"));
  if (json.contains("train_accuracy")) {
    ASSIGN_OR_RETURN(r.train_accuracy, NumberField(json, "train_accuracy"));
  }
  if (json.contains("validation_accuracy")) {
    ASSIGN_OR_RETURN(r.validation_accuracy, NumberField(json, "validation_accuracy"));
  }
  return r;
}

Result<TrainPosition> PositionFromJson(const Json& json, const StepKey& step) {
  ASSIGN_OR_RETURN(int64_t format, IntField(json, "format"));
  if (format != kFormat) return Error{ErrorCode::kVersion, "format " + std::to_string(format) + ", expected 1"};
  ASSIGN_OR_RETURN(StepKey owner, StepKeyField(json, "step"));
  if (owner != step) return Error{ErrorCode::kInvalid, "it belongs to step " + owner.brief() + ", not " + step.brief()};
  TrainPosition p;
  ASSIGN_OR_RETURN(p.epoch, IntField(json, "epoch"));
  ASSIGN_OR_RETURN(p.batch, IntField(json, "batch"));
  ASSIGN_OR_RETURN(p.loss_sum, NumberField(json, "loss_sum"));
  ASSIGN_OR_RETURN(p.correct, IntField(json, "correct"));
  ASSIGN_OR_RETURN(p.samples, IntField(json, "samples"));
  ASSIGN_OR_RETURN(p.labelled, IntField(json, "labelled"));
  auto history = json.find("history");
  if (history == json.end() || !history->is_array()) return Error{ErrorCode::kCorrupt, "no history"};
  for (const Json& entry : *history) {
    ASSIGN_OR_RETURN(EpochRecord record, RecordFromJson(entry));
    p.history.push_back(std::move(record));
  }
  return p;
}

Result<Snapshot> Take(model::TensorMap tensors, const StepKey& step) {
  Snapshot s;
  for (auto& [name, tensor] : tensors) {
    if (name.starts_with(kWeight)) s.weights.emplace(name.substr(kWeight.size()), std::move(tensor));
    else if (name.starts_with(kOptimizer)) s.optimizer.emplace(name.substr(kOptimizer.size()), std::move(tensor));
    else if (name.starts_with(kSum)) s.sums.emplace(name.substr(kSum.size()), std::move(tensor));
  }
  for (const auto& [name, tensor] : tensors) {
    if (!name.starts_with(kMask)) continue;
    std::string weight = name.substr(kMask.size());
    auto owner = s.weights.find(weight);
    if (owner == s.weights.end() || tensor.dtype() != model::DType::kI64) {
      return Error{ErrorCode::kCorrupt, "mask of " + weight + " without its tensor"};
    }
    std::span<const int64_t> words = tensor.values<int64_t>();
    std::span packed(reinterpret_cast<const uint64_t*>(words.data()), words.size());
    ASSIGN_OR_RETURN(model::Mask mask, model::Mask::FromPacked(owner->second.shape(), packed));
    s.masks.emplace(weight, std::move(mask));
  }
  auto state = tensors.find("state");
  if (state == tensors.end() || state->second.dtype() != model::DType::kU8) return Error{ErrorCode::kCorrupt, "no state"};
  std::span<const uint8_t> text = state->second.values<uint8_t>();
  ASSIGN_OR_RETURN(Json json, ParseJson({reinterpret_cast<const char*>(text.data()), text.size()}, "state"));
  ASSIGN_OR_RETURN(s.position, PositionFromJson(json, step));
  return s;
}

}  // namespace

Json ToJson(const EpochRecord& r) {
  Json json = {{"epoch", r.epoch}, {"loss", r.loss}};
  if (r.train_accuracy) json["train_accuracy"] = *r.train_accuracy;
  if (r.validation_accuracy) json["validation_accuracy"] = *r.validation_accuracy;
  return json;
}

std::string EncodeSnapshot(const Snapshot& s, const StepKey& step) {
  model::TensorMap tensors;
  for (const auto& [name, tensor] : s.weights) tensors.emplace(std::string(kWeight) + name, tensor);
  for (const auto& [name, tensor] : s.optimizer) tensors.emplace(std::string(kOptimizer) + name, tensor);
  for (const auto& [name, tensor] : s.sums) tensors.emplace(std::string(kSum) + name, tensor);
  for (const auto& [name, mask] : s.masks) {
    std::span<const uint64_t> words = mask.packed();
    std::span<const int64_t> packed(reinterpret_cast<const int64_t*>(words.data()), words.size());
    model::Shape shape = {static_cast<int64_t>(words.size())};
    tensors.emplace(std::string(kMask) + name, model::Tensor::Of<int64_t>(model::DType::kI64, std::move(shape), packed));
  }
  const TrainPosition& p = s.position;
  Json history = Json::array();
  for (const EpochRecord& record : p.history) history.push_back(ToJson(record));
  tensors.emplace("state", Bytes(Canonical({{"format", kFormat}, {"step", step.hex()}, {"epoch", p.epoch},
                                            {"batch", p.batch}, {"loss_sum", p.loss_sum}, {"correct", p.correct},
                                            {"samples", p.samples}, {"labelled", p.labelled}, {"history", std::move(history)}})));
  return model::EncodeSafetensors(tensors);
}

Result<Snapshot> DecodeSnapshot(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive,
                                const StepKey& step) {
  Result<model::TensorMap> tensors = model::DecodeSafetensors(bytes, std::move(keep_alive));
  if (!tensors.ok()) return Error{ErrorCode::kCorrupt, "snapshot: " + tensors.error().message};
  Result<Snapshot> snapshot = Take(*std::move(tensors), step);
  if (!snapshot.ok()) return snapshot.error().With("snapshot");
  return snapshot;
}

}  // namespace pare::runner
