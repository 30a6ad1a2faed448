#include "worker/runner/params.h"

#include <algorithm>
#include <cmath>

namespace pare::runner {
namespace {

// Fields of one object, with its path in messages: "params.train.optimizer: field 'momentum': …".
class Fields {
 public:
  static Result<Fields> At(const Json& parent, const std::string& path, const char* name) {
    auto it = parent.find(name);
    if (it == parent.end() || !it->is_object()) {
      return Error{ErrorCode::kInvalid, path + ": field '" + name + "': expected an object"};
    }
    return Fields(*it, path + "." + name);
  }
  Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {}

  Status Number(const char* name, double low, double high, double& out) const {
    Result<double> value = NumberField(object_, name);
    if (!value.ok()) return value.error().With(path_);
    if (!(*value >= low && *value <= high)) return OutOfRange(name, Json(*value), Json(low), Json(high));
    out = *value;
    return Ok();
  }
  Status Integer(const char* name, int64_t low, int64_t high, int64_t& out) const {
    Result<int64_t> value = IntField(object_, name);
    if (!value.ok()) return value.error().With(path_);
    if (*value < low || *value > high) return OutOfRange(name, *value, low, high);
    out = *value;
    return Ok();
  }
  Status Choice(const char* name, std::initializer_list<const char*> allowed, std::string& out) const {
    Result<std::string> value = StringField(object_, name);
    if (!value.ok()) return value.error().With(path_);
    std::string list;
    for (const char* choice : allowed) {
      if (*value == choice) {
        out = *value;
        return Ok();
      }
      list += std::string(list.empty() ? "" : ", ") + choice;
    }
    return Error{ErrorCode::kInvalid, path_ + ": field '" + name + "': '" + *value + "' is not one of " + list};
  }
  const Json& object() const { return object_; }
  const std::string& path() const { return path_; }

 private:
  Error OutOfRange(const char* name, const Json& value, const Json& low, const Json& high) const {
    return {ErrorCode::kInvalid, path_ + ": field '" + name + "': " + value.dump() + " is not between " + low.dump() +
                                     " and " + high.dump()};
  }
  const Json& object_;
  std::string path_;
};

constexpr double kLarge = 1e12;
constexpr int64_t kMaxEpochs = 1'000'000, kMaxBatch = 1 << 20, kMaxShards = 256;

Result<engine::OptimizerOptions> OptimizerFrom(const Fields& train) {
  engine::OptimizerOptions o;
  ASSIGN_OR_RETURN(Fields f, Fields::At(train.object(), train.path(), "optimizer"));
  TRY(f.Choice("kind", {"sgd", "adam", "adamw"}, o.kind));
  TRY(f.Number("momentum", 0.0, 1.0, o.momentum));
  Result<bool> nesterov = BoolField(f.object(), "nesterov");
  if (!nesterov.ok()) return nesterov.error().With(f.path());
  o.nesterov = *nesterov;
  TRY(f.Number("beta1", 0.0, 1.0, o.beta1));
  TRY(f.Number("beta2", 0.0, 1.0, o.beta2));
  TRY(f.Number("epsilon", 0.0, 1.0, o.epsilon));
  TRY(f.Number("weight_decay", 0.0, kLarge, o.weight_decay));
  return o;
}

Result<engine::ScheduleOptions> ScheduleFrom(const Fields& train) {
  engine::ScheduleOptions s;
  ASSIGN_OR_RETURN(Fields f, Fields::At(train.object(), train.path(), "schedule"));
  TRY(f.Choice("kind", {"constant", "multi_step", "cosine", "linear"}, s.kind));
  TRY(f.Number("learning_rate", 0.0, kLarge, s.learning_rate));
  TRY(f.Number("final_learning_rate", 0.0, kLarge, s.final_learning_rate));
  TRY(f.Number("gamma", 0.0, kLarge, s.gamma));
  TRY(f.Number("warmup_epochs", 0.0, kLarge, s.warmup_epochs));
  TRY(f.Number("epochs", 0.0, kLarge, s.epochs));
  auto milestones = f.object().find("milestones");
  bool numbers = milestones != f.object().end() && milestones->is_array() &&
                 std::all_of(milestones->begin(), milestones->end(), [](const Json& m) { return m.is_number(); });
  if (!numbers) return Error{ErrorCode::kInvalid, f.path() + ": field 'milestones': expected a list of epochs"};
  s.milestones = milestones->get<std::vector<double>>();
  return s;
}

}  // namespace

Result<TrainOptions> TrainOptionsFromJson(const Json& params) {
  TrainOptions t;
  ASSIGN_OR_RETURN(Fields f, Fields::At(params, "params", "train"));
  TRY(f.Integer("epochs", 0, kMaxEpochs, t.epochs));
  TRY(f.Integer("batch_size", 1, kMaxBatch, t.batch_size));
  TRY(f.Integer("shards", 1, kMaxShards, t.shards));
  TRY(f.Number("label_smoothing", 0.0, 1.0, t.label_smoothing));
  TRY(f.Number("clip_norm", 0.0, kLarge, t.clip_norm));
  if (f.object().contains("labels")) TRY(f.Number("labels", 0.0, 1.0, t.labels));
  ASSIGN_OR_RETURN(t.optimizer, OptimizerFrom(f));
  ASSIGN_OR_RETURN(t.schedule, ScheduleFrom(f));
  return t;
}

Result<EpochRange> EpochRangeFromJson(const Json& params, const TrainOptions& train) {
  EpochRange range;
  Fields f(params, "params");
  TRY(f.Integer("start_epoch", 0, train.epochs, range.start));
  TRY(f.Integer("stop_epoch", range.start, train.epochs, range.stop));
  TRY(f.Integer("draw_epoch", 0, INT64_MAX / 2, range.draw));
  return range;
}

Result<DistillOptions> DistillOptionsFromJson(const Json& params) {
  DistillOptions d;
  Fields f(params, "params");
  TRY(f.Number("temperature", 1e-3, 1e3, d.temperature));
  TRY(f.Number("hardness", 0.0, 1.0, d.hardness));
  if (!params.contains("match")) return d;
  ASSIGN_OR_RETURN(Fields match, Fields::At(params, "params", "match"));
  for (const auto& [student, teacher] : match.object().items()) {
    if (!teacher.is_string()) return Error{ErrorCode::kInvalid, "params.match: field '" + student + "': expected the name of a node"};
    d.match[student] = teacher.get<std::string>();
  }
  TRY(f.Number("match_weight", 0.0, kLarge, d.match_weight));
  return d;
}

Result<GradualPruning> GradualPruningFromJson(const Json& params, const model::Graph& graph, const model::GraphInfo& info, int64_t epochs) {
  GradualPruning g;
  Fields f(params, "params");
  std::string schedule;
  TRY(f.Choice("schedule", {"linear", "cubic"}, schedule));
  g.cubic = schedule == "cubic";
  TRY(f.Number("init_sparsity", 0.0, 1.0, g.initial));
  TRY(f.Number("final_sparsity", g.initial, 1.0, g.final));
  TRY(f.Number("start_epoch", 0.0, static_cast<double>(epochs), g.start_epoch));
  TRY(f.Number("end_epoch", g.start_epoch, static_cast<double>(epochs), g.end_epoch));
  TRY(f.Number("update_frequency", 1e-6, kLarge, g.update_frequency));
  ASSIGN_OR_RETURN(g.options, methods::PruneOptionsFromJson(params, graph, info));
  if (g.options.criterion == methods::Criterion::kMovement && g.initial > 0.0 && g.start_epoch == 0.0) {
    return Error{ErrorCode::kInvalid, "params: criterion movement knows nothing before the first batch: init_sparsity must be 0, or start_epoch later"};
  }
  return g;
}

std::vector<MaskRefresh> MaskRefreshes(const GradualPruning& p, int64_t batches) {
  std::vector<MaskRefresh> refreshes;
  auto add = [&](double epoch) {
    int64_t batch = std::llround(epoch * static_cast<double>(batches));
    double sparsity = engine::ScheduledSparsity(p.cubic, p.initial, p.final, p.start_epoch, p.end_epoch, epoch);
    if (epoch >= p.end_epoch) sparsity = p.final;
    if (!refreshes.empty() && refreshes.back().batch == batch) refreshes.pop_back();
    refreshes.push_back({batch, sparsity});
  };
  // k · frequency, never a running sum: rounding errors must not add up. At most one refresh per batch counts.
  double step = std::max(p.update_frequency, 1.0 / static_cast<double>(batches));
  for (int64_t k = 0; p.start_epoch + static_cast<double>(k) * step < p.end_epoch; ++k) {
    add(p.start_epoch + static_cast<double>(k) * step);
  }
  add(p.end_epoch);
  return refreshes;
}

}  // namespace pare::runner
