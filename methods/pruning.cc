#include "methods/pruning.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "methods/prune_units.h"
#include "methods/registry.h"

namespace pare::methods {
namespace {

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

int64_t Portion(double fraction, int64_t n) { return std::llround(fraction * static_cast<double>(n)); }

constexpr std::array<std::pair<Criterion, std::string_view>, 6> kCriteria = {{
    {Criterion::kMagnitudeL1, "magnitude_l1"}, {Criterion::kMagnitudeL2, "magnitude_l2"}, {Criterion::kRandom, "random"},
    {Criterion::kTaylor, "taylor"}, {Criterion::kFisher, "fisher"}, {Criterion::kMovement, "movement"},
}};

bool WantsCompanion(Criterion c) { return WantsCalibration(c) || c == Criterion::kMovement; }

Status CheckFraction(const char* field, double value) {
  if (value >= 0.0 && value <= 1.0) return Ok();
  return Invalid(std::string("prune: ") + field + ": " + std::to_string(value) + " is not a fraction between 0 and 1");
}

bool HasNan(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float v) { return std::isnan(v); });
}

Status CheckArguments(const PruneOptions& options, const PruneAmount& amount, std::span<const WeightView> weights) {
  if (amount.sparsity.has_value() == amount.fraction_of_remaining.has_value()) {
    return Invalid("prune: exactly one of sparsity and fraction_of_remaining must be given");
  }
  TRY(CheckFraction("sparsity", amount.sparsity.value_or(0.0)));
  TRY(CheckFraction("fraction_of_remaining", amount.fraction_of_remaining.value_or(0.0)));
  TRY(CheckFraction("min_density", options.min_density));
  TRY(CheckFraction("max_density", options.max_density));
  if (options.min_density > options.max_density) return Invalid("prune: min_density is above max_density");
  for (const WeightView& view : weights) {
    CHECK(static_cast<int64_t>(view.values.size()) == model::ElementCount(view.shape));
    TRY(CheckGroups(options.granularity, view.name, view.shape));
    if (options.criterion == Criterion::kRandom) continue;
    if (HasNan(view.values)) {
      return Error{ErrorCode::kDiverged, "prune: " + view.name + " holds NaN: the training before it diverged"};
    }
    if (!WantsCompanion(options.criterion)) continue;
    CHECK(view.companion.size() == view.values.size());
    if (HasNan(view.companion)) {
      return Error{ErrorCode::kDiverged, "prune: the gradient of " + view.name + " holds NaN: the network has diverged or the samples are damaged"};
    }
  }
  return Ok();
}

std::vector<KeySource> SourcesOf(const PruneOptions& options, std::span<const WeightView> weights,
                                 const std::vector<model::Mask>& masks, const PruneDraw& draw) {
  std::vector<KeySource> sources;
  for (size_t t = 0; t < weights.size(); ++t) {
    ScoreSource scores = ScoresOf(options.criterion, weights[t], weights[t].ordinal, draw);
    if (options.granularity.kind == GranularityKind::kBlock) {
      MatrixShape matrix = MatrixOf(weights[t].shape);
      sources.emplace_back(std::move(scores), masks[t], Tiling{matrix.rows, matrix.columns, options.granularity.rows, options.granularity.columns});
    } else {
      sources.emplace_back(std::move(scores), masks[t]);
    }
  }
  return sources;
}

void PruneEachLayer(const PruneAmount& amount, std::span<const Quota> quotas, std::span<const KeySource> sources,
                    std::span<model::Mask> masks) {
  const Bounds all;
  for (size_t t = 0; t < sources.size(); ++t) {
    const Quota& q = quotas[t];
    int64_t target = std::clamp(Wanted(amount, q.size, q.removed), q.least, q.most);
    Cut cut = SelectLowest(sources[t], target - q.removed);
    RemoveCut(sources.subspan(t, 1), std::span(&all, 1), cut, masks.subspan(t, 1));
  }
}

// n_m: in every group of m the lowest go, as far as n of them stay.
void PruneGroups(const PruneOptions& options, const PruneAmount& amount, const WeightView& view, const PruneDraw& draw, model::Mask& mask) {
  const int64_t m = options.granularity.m, most = m - options.granularity.n;
  ScoreSource scores = ScoresOf(options.criterion, view, view.ordinal, draw);
  auto key = [&](int64_t i) {
    if (options.criterion == Criterion::kRandom) return scores.stream->Block(static_cast<uint64_t>(i) / 4)[static_cast<size_t>(i % 4)];
    return KeyOfScore(static_cast<float>(scores.At(static_cast<size_t>(i))));
  };
  std::vector<std::pair<uint32_t, int64_t>> group;
  for (int64_t first = 0; first < mask.size(); first += m) {
    group.clear();
    for (int64_t i = first; i < first + m; ++i) {
      if (mask.keeps(i)) group.emplace_back(key(i), i);
    }
    int64_t removed = m - static_cast<int64_t>(group.size()), target = std::min(most, Wanted(amount, m, removed));
    if (target <= removed) continue;
    std::sort(group.begin(), group.end());
    for (int64_t k = 0; k < target - removed; ++k) mask.set(group[static_cast<size_t>(k)].second, false);
  }
}

Status PruneTogether(const PruneAmount& amount, std::span<const Quota> quotas, std::span<const KeySource> sources,
                     std::span<model::Mask> masks) {
  ASSIGN_OR_RETURN(Ranking ranking, RankTogether(amount, quotas, sources));
  RemoveCut(sources, ranking.bounds, ranking.cut, masks);
  return Ok();
}

Result<double> Fraction(const Json& params, const char* field) {
  ASSIGN_OR_RETURN(double value, NumberField(params, field));
  TRY(CheckFraction(field, value));
  return value;
}

// Names of the present weights that `tensors` stands for (PresentTensors), in the order of `info`.
Result<std::vector<std::string>> TensorNames(const Json& params, const model::GraphInfo& info) {
  Result<std::vector<model::TensorSpec>> specs = PresentTensors(params, info);
  if (!specs.ok()) return specs.error().With("prune");
  std::vector<std::string> asked = params.at("tensors").get<std::vector<std::string>>(), names;
  if (asked.empty()) return Invalid("prune: field 'tensors': expected a list of tensor names");
  std::sort(asked.begin(), asked.end());
  if (auto twice = std::adjacent_find(asked.begin(), asked.end()); twice != asked.end()) {
    return Invalid("prune: field 'tensors': " + *twice + " is named twice");
  }
  for (const model::TensorSpec& spec : *specs) {
    if (!spec.prunable) return Invalid("prune: field 'tensors': " + spec.name + " is not a prunable weight");
    names.push_back(spec.name);
  }
  if (names.empty()) return Invalid("prune: field 'tensors': the model has no tensor " + asked[0] + (asked.size() > 1 ? ", and none of the others" : ""));
  return names;
}

Result<Criterion> CriterionOf(const std::string& name) {
  std::string known;
  for (const auto& [criterion, text] : kCriteria) {
    if (name == text) return criterion;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  return Invalid("prune: field 'criterion': '" + name + "' is not one of " + known);
}

// What the granularity needs to know of the network, and contradictions with the rest.
Status ReadGranularity(const Json& params, const model::Graph& graph, const model::GraphInfo& info, PruneOptions& options) {
  ASSIGN_OR_RETURN(options.granularity, GranularityFromJson(params));
  const Granularity& g = options.granularity;
  if (g.kind == GranularityKind::kNofM && options.scope != Scope::kLayer) {
    return Invalid("prune: n_m keeps as many weights in every group: the scope must be layer");
  }
  if (g.kind == GranularityKind::kNofM && options.min_density > static_cast<double>(g.n) / static_cast<double>(g.m)) {
    return Invalid("prune: field 'min_density' is above the density of " + std::to_string(g.n) + ":" + std::to_string(g.m));
  }
  for (const model::TensorSpec& spec : info.tensors) {
    if (std::find(options.tensors.begin(), options.tensors.end(), spec.name) != options.tensors.end()) {
      TRY(CheckGroups(g, spec.name, spec.shape));
    }
  }
  if (g.kind != GranularityKind::kStructured) return Ok();
  if (g.unit == UnitKind::kLayer && options.scope != Scope::kGlobal) {
    return Invalid("prune: layers are ranked with one another: the scope must be global");
  }
  ASSIGN_OR_RETURN(UnitPlan plan, PlanUnits(graph, info, g.unit, options.tensors));
  options.units = std::make_shared<const UnitPlan>(std::move(plan));
  return Ok();
}

}  // namespace

std::string_view ToString(Criterion criterion) {
  for (const auto& [value, text] : kCriteria) {
    if (value == criterion) return text;
  }
  return "";
}

ScoreSource ScoresOf(Criterion criterion, const WeightView& view, uint64_t ordinal, const PruneDraw& draw) {
  ScoreSource scores{ScoreKind::kMagnitude, view.values, view.companion, {}};
  switch (criterion) {
    case Criterion::kMagnitudeL1: break;
    case Criterion::kMagnitudeL2: scores.kind = ScoreKind::kSquare; break;
    case Criterion::kTaylor: scores.kind = ScoreKind::kProduct; break;
    case Criterion::kFisher: scores.kind = ScoreKind::kSquareProduct; break;
    case Criterion::kMovement: scores.kind = ScoreKind::kGiven; break;
    case Criterion::kRandom:
      scores.kind = ScoreKind::kRandom;
      scores.stream.emplace(draw.seed, RandomPurpose::kPruneRandom, ordinal, static_cast<uint64_t>(draw.draw));
  }
  return scores;
}

Quota QuotaOf(const PruneOptions& options, const KeySource& source) {
  Quota q;
  q.size = source.items();
  q.removed = q.size - source.live();
  q.most = std::max(q.removed, q.size - Portion(options.min_density, q.size));
  q.least = std::clamp(q.size - Portion(options.max_density, q.size), q.removed, q.most);
  return q;
}

int64_t Wanted(const PruneAmount& amount, int64_t size, int64_t removed) {
  if (amount.sparsity) return std::max(removed, Portion(*amount.sparsity, size));
  return removed + Portion(*amount.fraction_of_remaining, size - removed);
}

Result<Ranking> RankTogether(const PruneAmount& amount, std::span<const Quota> quotas, std::span<const KeySource> sources) {
  Quota sum;
  Ranking ranking{std::vector<Bounds>(sources.size()), kCutNothing};
  for (size_t t = 0; t < sources.size(); ++t) {
    const Quota& q = quotas[t];
    sum.size += q.size;
    sum.removed += q.removed;
    sum.least += q.least;
    sum.most += q.most;
    if (q.least > q.removed) ranking.bounds[t].must = SelectLowest(sources[t], q.least - q.removed);
    if (q.most < q.size) ranking.bounds[t].may = SelectLowest(sources[t], q.most - q.removed);
  }
  int64_t target = std::max(Wanted(amount, sum.size, sum.removed), sum.removed);
  if (target < sum.least || target > sum.most) {
    return Invalid("prune: " + std::to_string(target) + " of " + std::to_string(sum.size) +
                   " weights or units are to be removed, but min_density and max_density allow " + std::to_string(sum.least) +
                   " to " + std::to_string(sum.most));
  }
  ranking.cut = SelectLowest(sources, ranking.bounds, target - sum.least);
  return ranking;
}

Result<PruneOptions> PruneOptionsFromJson(const Json& params, const model::Graph& graph, const model::GraphInfo& info) {
  PruneOptions options;
  ASSIGN_OR_RETURN(std::string criterion, StringField(params, "criterion"));
  ASSIGN_OR_RETURN(options.criterion, CriterionOf(criterion));
  if (WantsCalibration(options.criterion)) {
    ASSIGN_OR_RETURN(options.calibration_samples, IntField(params, "calibration_samples"));
    if (options.calibration_samples < 1) return Invalid("prune: field 'calibration_samples': must be at least 1");
  }
  ASSIGN_OR_RETURN(std::string scope, StringField(params, "scope"));
  if (scope == "layer") options.scope = Scope::kLayer;
  else if (scope == "global") options.scope = Scope::kGlobal;
  else return Invalid("prune: field 'scope': '" + scope + "' is not one of layer, global");
  ASSIGN_OR_RETURN(options.min_density, Fraction(params, "min_density"));
  ASSIGN_OR_RETURN(options.max_density, Fraction(params, "max_density"));
  if (options.min_density > options.max_density) return Invalid("prune: field 'min_density' is above 'max_density'");
  ASSIGN_OR_RETURN(options.tensors, TensorNames(params, info));
  TRY(ReadGranularity(params, graph, info, options));
  return options;
}

Result<std::vector<WeightView>> ViewWeights(const PruneOptions& options, const model::GraphInfo& info,
                                            const model::TensorMap& tensors) {
  std::vector<WeightView> views;
  for (const std::string& name : options.tensors) {
    auto tensor = tensors.find(name);
    if (tensor == tensors.end()) return Invalid("prune: the model has no tensor " + name);
    if (tensor->second.dtype() != model::DType::kF32) {
      return Invalid("prune: " + name + " is " + std::string(model::ToString(tensor->second.dtype())) + ", expected F32");
    }
    auto spec = std::find_if(info.tensors.begin(), info.tensors.end(), [&](const auto& s) { return s.name == name; });
    CHECK(spec != info.tensors.end());
    views.push_back({name, tensor->second.shape(), tensor->second.values<float>(),
                     static_cast<uint64_t>(spec - info.tensors.begin())});
  }
  return views;
}

Result<model::MaskMap> Prune(const PruneOptions& options, const PruneAmount& amount, std::span<const WeightView> weights,
                             const model::MaskMap& masks, const PruneDraw& draw) {
  TRY(CheckArguments(options, amount, weights));
  for (const WeightView& view : weights) {
    auto mask = masks.find(view.name);
    if (mask != masks.end() && mask->second.shape() != view.shape) {
      return Invalid("prune: the mask of " + view.name + " has shape " + model::ToString(mask->second.shape()) +
                     ", the tensor " + model::ToString(view.shape));
    }
  }
  if (options.granularity.kind == GranularityKind::kStructured) return PruneUnits(options, amount, weights, masks, draw);
  std::vector<model::Mask> before;
  for (const WeightView& view : weights) {
    auto mask = masks.find(view.name);
    before.push_back(mask == masks.end() ? model::Mask(view.shape) : mask->second);
  }
  std::vector<model::Mask> after = before;
  if (options.granularity.kind == GranularityKind::kNofM) {
    for (size_t t = 0; t < weights.size(); ++t) PruneGroups(options, amount, weights[t], draw, after[t]);
  } else {
    std::vector<KeySource> sources = SourcesOf(options, weights, before, draw);
    std::vector<Quota> quotas;
    for (const KeySource& source : sources) quotas.push_back(QuotaOf(options, source));
    if (options.scope == Scope::kLayer) {
      PruneEachLayer(amount, quotas, sources, after);
    } else {
      TRY(PruneTogether(amount, quotas, sources, after));
    }
  }
  model::MaskMap result = masks;
  for (size_t t = 0; t < weights.size(); ++t) result.insert_or_assign(weights[t].name, std::move(after[t]));
  return result;
}

void ApplyMasks(const model::MaskMap& masks, model::TensorMap& tensors) {
  for (const auto& [name, mask] : masks) {
    auto found = tensors.find(name);
    CHECK(found != tensors.end() && found->second.shape() == mask.shape());
    if (found->second.dtype() != model::DType::kF32) continue;
    model::Tensor applied(found->second.dtype(), found->second.shape());
    std::span<const float> in = found->second.values<float>();
    std::span<float> out = applied.mutable_values<float>();
    for (size_t i = 0; i < in.size(); ++i) out[i] = mask.keeps(static_cast<int64_t>(i)) ? in[i] : 0.0f;
    found->second = std::move(applied);
  }
}

}  // namespace pare::methods
