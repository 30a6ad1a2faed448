#include "worker/runner/training.h"

#include <algorithm>
#include <cmath>

#include "common/log.h"
#include "common/random.h"
#include "worker/engine/loss.h"
#include "worker/engine/network.h"
#include "worker/runner/evaluation.h"
#include "worker/runner/calibration.h"
#include "worker/runner/importance.h"

namespace pare::runner {
namespace {

constexpr const char* kMovementSum = "movement";  // in a snapshot's sums

class Trainer {
 public:
  Trainer(TrainJob job, const TrainServices& services) : job_(std::move(job)), services_(services) {}

  Status Prepare(std::optional<Snapshot> resume);
  Result<TrainResult> Run();

 private:
  Status ChooseRows();
  Status CheckStop();
  // Stopped between batches; where `keep`, a snapshot is left.
  Error Stopped(bool keep, const std::string& why);
  Status RunBatch();
  Status PrepareGradual(const std::optional<Snapshot>& resume);
  Status RefreshMasks();
  // What the criterion wants to know beside the weights, one value per parameter; empty: nothing.
  std::vector<float> Importance();
  Status EndEpoch();
  void SetMasks();
  void ReportProgress(bool epoch_end);
  void SnapshotIfDue(bool epoch_end);
  Status CheckFinite();
  Snapshot Capture() const;
  Json PositionJson() const { return {{"epoch", position_.epoch}, {"batch", position_.batch}}; }
  // Another rank of the gang speaks for it.
  bool follows() const { return job_.gang != nullptr && job_.gang->rank() > 0; }
  // Batches of the step done so far.
  int64_t done() const { return (position_.epoch - job_.range.start) * batches_ + position_.batch; }
  int64_t draw_epoch(int64_t epoch) const { return job_.range.draw + epoch - job_.range.start; }
  Error Diverged(const std::string& what) const;

  TrainJob job_;
  const TrainServices& services_;
  std::unique_ptr<engine::Network> network_;
  std::unique_ptr<engine::Optimizer> optimizer_;
  data::SplitIndices split_;
  std::vector<MaskRefresh> refreshes_;
  std::vector<uint32_t> calibration_;  // rows
  std::vector<float> movement_;        // −Σ w·∂L/∂w since the step began, flat; empty unless it is the criterion
  std::vector<uint8_t> mask_;  // flat, like the parameters; empty without masks
  TrainPosition position_;
  int64_t batches_ = 0;  // per epoch

  std::vector<uint32_t> order_;  // rows of the present epoch
  int64_t order_epoch_ = -1;
  std::vector<int64_t> labels_;
  std::vector<bool> has_label_;  // by row; empty: all

  Millis began_{0}, last_progress_{0}, last_snapshot_{0};
  int64_t began_at_ = 0;  // done() when this run began
  double learning_rate_ = 0.0;
};

Status Trainer::ChooseRows() {
  int64_t count = job_.dataset.train.samples.shape()[0];
  if (job_.data.validation < 0 || job_.data.validation >= count) {
    return Error{ErrorCode::kInvalid, "data: validation: " + std::to_string(job_.data.validation) + " of " +
                                          std::to_string(count) + " training samples leaves none to train on"};
  }
  split_ = data::CutValidation(count, job_.data.validation, job_.data.split_seed);
  if (job_.options.labels >= 1.0) return Ok();
  std::vector<uint32_t> labelled = LabelledRows(split_.train, job_.options.labels, job_.seed);
  if (job_.teacher != nullptr) {
    has_label_.resize(static_cast<size_t>(count));
    for (uint32_t row : labelled) has_label_[row] = true;
    return Ok();
  }
  if (labelled.empty()) return Error{ErrorCode::kInvalid, "params.train: field 'labels': without a teacher none is left to train on"};
  split_.train = std::move(labelled);
  return Ok();
}

Status Trainer::Prepare(std::optional<Snapshot> resume) {
  TRY(CheckFits(job_.graph, job_.info, job_.dataset, job_.data));
  TRY(ChooseRows());
  auto rows = static_cast<int64_t>(split_.train.size());
  int64_t batch = std::min(job_.options.batch_size, rows);
  batches_ = (rows + job_.options.batch_size - 1) / job_.options.batch_size;
  labels_.resize(static_cast<size_t>(batch));
  if (resume) {
    for (auto& [name, tensor] : resume->weights) job_.weights.insert_or_assign(name, std::move(tensor));
    job_.masks = std::move(resume->masks);
    position_ = std::move(resume->position);
    if (position_.epoch < job_.range.start || position_.epoch > job_.range.stop || position_.batch < 0 ||
        position_.batch >= batches_) {
      return Error{ErrorCode::kCorrupt, "snapshot: its position is outside of the step"};
    }
  } else {
    position_.epoch = job_.range.start;
  }
  engine::NetworkOptions options;
  options.device = job_.device;
  options.threads = job_.threads;
  options.shards = static_cast<int>(job_.options.shards);
  options.max_batch = std::max(batch, kEvaluationBatch);
  options.seed = job_.seed;
  options.taps = job_.taps;
  options.frozen = job_.frozen;
  options.collective = job_.gang;
  ASSIGN_OR_RETURN(network_, engine::Network::Create(job_.graph, job_.weights, options));
  optimizer_ = engine::Optimizer::Create(job_.options.optimizer, static_cast<int64_t>(network_->parameters().size()));
  if (resume) TRY(optimizer_->SetState(resume->optimizer));
  if (job_.gradual) TRY(PrepareGradual(resume));
  job_.weights.clear();
  SetMasks();
  began_ = last_snapshot_ = services_.clock.Monotonic();
  last_progress_ = began_ - kProgressInterval;
  began_at_ = done();
  if (!resume) TRY(RefreshMasks());
  return Ok();
}

Status Trainer::PrepareGradual(const std::optional<Snapshot>& resume) {
  refreshes_ = MaskRefreshes(*job_.gradual, batches_);
  const methods::PruneOptions& options = job_.gradual->options;
  if (methods::WantsCalibration(options.criterion)) {
    ASSIGN_OR_RETURN(calibration_, CalibrationSamples(split_.train, options.calibration_samples, job_.seed));
  }
  if (options.criterion != methods::Criterion::kMovement) return Ok();
  movement_.assign(network_->parameters().size(), 0.0f);
  if (!resume) return Ok();
  auto saved = resume->sums.find(kMovementSum);
  if (saved == resume->sums.end() || saved->second.dtype() != model::DType::kF32 || saved->second.size() != static_cast<int64_t>(movement_.size())) {
    return Error{ErrorCode::kCorrupt, "snapshot: the sum 'movement' is missing or of another size"};
  }
  std::span<const float> values = saved->second.values<float>();
  std::copy(values.begin(), values.end(), movement_.begin());
  return Ok();
}

Result<TrainResult> Trainer::Run() {
  while (position_.epoch < job_.range.stop) {
    while (position_.batch < batches_) {
      TRY(CheckStop());
      TRY(RunBatch());
      ++position_.batch;
      TRY(RefreshMasks());
      if (position_.batch < batches_) {
        ReportProgress(false);
        SnapshotIfDue(false);
      }
    }
    TRY(EndEpoch());
  }
  network_->Pull();
  TrainResult result{network_->Weights(), std::move(job_.masks), std::move(position_.history)};
  methods::ApplyMasks(result.masks, result.weights);
  return result;
}

Status Trainer::CheckStop() {
  if (auto stored = services_.snapshots.Poll()) services_.hooks.Snapshot(stored->blob, stored->position);
  std::optional<StopRequest> stop = services_.hooks.StopRequested();
  if (!stop) return Ok();
  return Stopped(stop->keep, "");
}

Error Trainer::Stopped(bool keep, const std::string& why) {
  if (keep) services_.stopped = services_.snapshots.WriteNow(EncodeSnapshot(Capture(), job_.step), PositionJson());
  return {ErrorCode::kStopped, "stopped before batch " + std::to_string(position_.batch) + " of epoch " + std::to_string(position_.epoch) + why};
}

Status Trainer::RunBatch() {
  int64_t draw = draw_epoch(position_.epoch);
  if (order_epoch_ != position_.epoch) {
    RandomStream stream(job_.seed, RandomPurpose::kShuffle, static_cast<uint64_t>(draw));
    order_ = Permutation(stream, static_cast<uint32_t>(split_.train.size()));
    for (uint32_t& row : order_) row = split_.train[row];
    order_epoch_ = position_.epoch;
  }
  auto size = static_cast<size_t>(job_.options.batch_size), first = static_cast<size_t>(position_.batch) * size;
  size_t n = std::min(size, order_.size() - first);
  std::span<const uint32_t> rows(order_.data() + first, n);
  std::span<int64_t> labels(labels_.data(), n);
  data::GatherLabels(job_.dataset.train, rows, labels);
  for (size_t i = 0; i < n && !has_label_.empty(); ++i) {
    if (!has_label_[rows[i]]) labels[i] = engine::kNoLabel;
  }

  learning_rate_ = engine::LearningRate(job_.options.schedule, position_.epoch, position_.batch, batches_);
  engine::SampleSource samples = [&](int64_t from, int64_t count, std::span<float> out) {
    data::GatherAugmented(job_.dataset.train, job_.data, rows.subspan(static_cast<size_t>(from), static_cast<size_t>(count)), job_.seed, draw, out);
  };
  engine::LossOptions loss{.label_smoothing = job_.options.label_smoothing};
  if (job_.teacher != nullptr) TRY(job_.teacher->Teach(rows, samples, loss));
  engine::BatchResult result = network_->TrainBatch(samples, labels, {draw, position_.batch}, loss);
  if (!result.exchanged.ok()) {
    // Nothing has changed since the last boundary.
    LogWarning("step " + job_.step.brief() + ": the gang broke: " + result.exchanged.error().message);
    std::optional<StopRequest> stop = services_.hooks.StopRequested();
    return Stopped(!stop || stop->keep, ": the gang broke: " + result.exchanged.error().message);
  }
  if (!std::isfinite(result.loss)) return Diverged("the loss is not a number");
  if (!movement_.empty()) {
    engine::AddMovement(network_->parameters(), network_->gradients(), movement_, [this](const auto& body) { network_->ForRanges(body); });
  }
  double scale = 1.0;
  if (job_.options.clip_norm > 0.0) {
    // As torch.nn.utils.clip_grad_norm_.
    scale = std::min(1.0, job_.options.clip_norm / (engine::GradientNorm(network_->gradients()) + 1e-6));
  }
  optimizer_->Step(network_->parameters(), network_->gradients(), mask_, learning_rate_, scale, [this](const auto& body) { network_->ForRanges(body); });
  network_->Push();
  position_.loss_sum += result.loss * static_cast<double>(n);
  position_.correct += result.correct;
  position_.samples += static_cast<int64_t>(n);
  position_.labelled += result.labelled;
  return Ok();
}

Status Trainer::RefreshMasks() {
  int64_t now = done();
  auto due = std::find_if(refreshes_.begin(), refreshes_.end(), [&](const MaskRefresh& r) { return r.batch == now; });
  if (due == refreshes_.end()) return Ok();
  network_->Pull();
  std::vector<float> gradients = Importance();
  std::span<const float> parameters = network_->parameters(), companions = movement_.empty() ? std::span<const float>(gradients) : movement_;
  std::vector<methods::WeightView> views;
  for (const std::string& name : job_.gradual->options.tensors) {
    auto spec = std::find_if(job_.info.tensors.begin(), job_.info.tensors.end(), [&](const auto& s) { return s.name == name; });
    auto slice = std::find_if(network_->layout().begin(), network_->layout().end(), [&](const auto& s) { return s.name == name; });
    CHECK(spec != job_.info.tensors.end() && slice != network_->layout().end());
    auto offset = static_cast<size_t>(slice->offset), size = static_cast<size_t>(slice->size);
    views.push_back({name, spec->shape, parameters.subspan(offset, size), static_cast<uint64_t>(spec - job_.info.tensors.begin()),
                     companions.empty() ? companions : companions.subspan(offset, size)});
  }
  // A schedule keeps its draw, so that a random criterion goes through one order.
  ASSIGN_OR_RETURN(job_.masks, methods::Prune(job_.gradual->options, {due->sparsity, {}}, views, job_.masks,
                                              {job_.seed, job_.range.draw}));
  SetMasks();
  return Ok();
}

std::vector<float> Trainer::Importance() {
  methods::Criterion criterion = job_.gradual->options.criterion;
  if (!methods::WantsCalibration(criterion)) return {};
  GradientMoment moment = criterion == methods::Criterion::kFisher ? GradientMoment::kMeanSquare : GradientMoment::kMean;
  return GradientsOf(*network_, job_.dataset.train, job_.data, calibration_, moment);
}

void Trainer::SetMasks() {
  if (job_.masks.empty()) return;
  std::span<float> parameters = network_->parameters();
  mask_.assign(parameters.size(), 1);
  for (const engine::ParameterSlice& slice : network_->layout()) {
    auto mask = job_.masks.find(slice.name);
    if (mask == job_.masks.end()) continue;
    for (int64_t i = 0; i < slice.size; ++i) {
      if (mask->second.keeps(i)) continue;
      mask_[static_cast<size_t>(slice.offset + i)] = 0;
      parameters[static_cast<size_t>(slice.offset + i)] = 0.0f;
    }
  }
  network_->Push();
  // Of removed weights the norm reads the gradients, and the movement; the optimizer does not.
  if (job_.options.clip_norm == 0.0 && movement_.empty()) network_->SetExchanged(mask_);
}

Status Trainer::EndEpoch() {
  TRY(CheckFinite());
  EpochRecord record;
  record.epoch = position_.epoch + 1;
  record.loss = position_.loss_sum / static_cast<double>(position_.samples);
  if (position_.labelled > 0) record.train_accuracy = Percent(position_.correct, position_.labelled);
  if (!split_.validation.empty()) {
    EvaluationCounts counts = EvaluateRows(*network_, job_.dataset.train, job_.data, split_.validation, nullptr);
    record.validation_accuracy = Percent(counts.correct, counts.total);
  }
  position_.history.push_back(record);
  position_.batch = 0;
  ++position_.epoch;
  ReportProgress(true);
  position_.loss_sum = 0.0;
  position_.correct = position_.samples = position_.labelled = 0;
  if (position_.epoch < job_.range.stop) SnapshotIfDue(true);
  return Ok();
}

Status Trainer::CheckFinite() {
  network_->Pull();
  std::span<const float> parameters = network_->parameters();
  bool finite = std::all_of(parameters.begin(), parameters.end(), [](float w) { return std::isfinite(w); });
  return finite ? Ok() : Status(Diverged("a weight is not finite"));
}

Error Trainer::Diverged(const std::string& what) const {
  return {ErrorCode::kDiverged,
          what + " in epoch " + std::to_string(position_.epoch + 1) + " of " +
              std::to_string(job_.range.stop) + ", batch " + std::to_string(std::min(position_.batch + 1, batches_)) + " of " +
              std::to_string(batches_) + ", learning rate " + Json(learning_rate_).dump() +
              "; lower learning_rate, raise warmup_epochs or set clip_norm" +
              (job_.teacher != nullptr ? ", or lower the temperature: its square scales the gradients" : "")};
}

void Trainer::ReportProgress(bool epoch_end) {
  if (follows()) return;
  Millis now = services_.clock.Monotonic();
  if (!epoch_end && now - last_progress_ < kProgressInterval) return;
  last_progress_ = now;
  auto per_epoch = static_cast<double>(batches_);
  int64_t epochs = job_.range.stop - job_.range.start;
  Json values = {{"epoch", static_cast<double>(done()) / per_epoch},
                 {"epochs", epochs},
                 {"loss", position_.loss_sum / static_cast<double>(position_.samples)},
                 {"learning_rate", learning_rate_}};
  if (position_.labelled > 0) values["train_accuracy"] = Percent(position_.correct, position_.labelled);
  if (epoch_end && position_.history.back().validation_accuracy) {
    values["accuracy"] = *position_.history.back().validation_accuracy;
  }
  int64_t size = 0, kept = 0;
  for (const auto& [name, mask] : job_.masks) size += mask.size(), kept += mask.kept();
  if (size > 0) values["sparsity"] = 1.0 - static_cast<double>(kept) / static_cast<double>(size);
  double seconds = std::chrono::duration<double>(now - began_).count();
  int64_t ran = done() - began_at_;
  if (seconds > 0.0 && ran > 0) {
    double samples = static_cast<double>(ran) / per_epoch * static_cast<double>(split_.train.size());
    values["samples_per_second"] = samples / seconds;
    values["eta_s"] = seconds / static_cast<double>(ran) * static_cast<double>(epochs * batches_ - done());
  }
  services_.hooks.Progress(std::move(values));
}

void Trainer::SnapshotIfDue(bool epoch_end) {
  if (follows() || services_.snapshots.busy()) return;  // the disk is slower than the interval: skip this one
  int64_t trained = position_.epoch - job_.range.start;
  bool due = epoch_end && job_.snapshot_every_epochs > 0 && trained % job_.snapshot_every_epochs == 0;
  if (!due && job_.snapshot_every_seconds > 0.0) {
    std::chrono::duration<double> since = services_.clock.Monotonic() - last_snapshot_;
    due = since.count() >= job_.snapshot_every_seconds;
  }
  if (!due) return;
  last_snapshot_ = services_.clock.Monotonic();
  services_.snapshots.Start(EncodeSnapshot(Capture(), job_.step), PositionJson());
}

Snapshot Trainer::Capture() const {
  network_->Pull();
  model::TensorMap sums;
  if (!movement_.empty()) {
    sums.emplace(kMovementSum, model::Tensor::Of<float>(model::DType::kF32, {static_cast<int64_t>(movement_.size())}, std::span<const float>(movement_)));
  }
  model::TensorMap weights = network_->Weights();
  for (const std::string& name : job_.frozen) weights.erase(name);
  return {std::move(weights), job_.masks, optimizer_->State(), std::move(sums), position_};
}

}  // namespace

std::vector<uint32_t> LabelledRows(std::span<const uint32_t> rows, double fraction, uint64_t seed) {
  std::vector<uint32_t> order = Permutation(RandomStream(seed, RandomPurpose::kLabels), static_cast<uint32_t>(rows.size()));
  order.resize(static_cast<size_t>(std::llround(fraction * static_cast<double>(rows.size()))));
  for (uint32_t& place : order) place = rows[place];
  std::sort(order.begin(), order.end());
  return order;
}

Result<TrainResult> Train(TrainJob job, std::optional<Snapshot> resume, const TrainServices& services) {
  Trainer trainer(std::move(job), services);
  TRY(trainer.Prepare(std::move(resume)));
  return trainer.Run();
}

}  // namespace pare::runner
