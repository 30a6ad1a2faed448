#include "methods/pruning.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/selection.h"

namespace pare::methods {
namespace {

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

int64_t Portion(double fraction, int64_t n) { return std::llround(fraction * static_cast<double>(n)); }

// How many weights of one tensor (or of all together) are gone, and may be gone afterwards.
struct Quota {
  int64_t size = 0, removed = 0;  // now
  int64_t least = 0, most = 0;    // removed afterwards, by the density bounds
};

Quota QuotaOf(const PruneOptions& options, const model::Mask& mask) {
  Quota q;
  q.size = mask.size();
  q.removed = q.size - mask.kept();
  q.most = std::max(q.removed, q.size - Portion(options.min_density, q.size));
  q.least = std::clamp(q.size - Portion(options.max_density, q.size), q.removed, q.most);
  return q;
}

// The count that `amount` asks for, removed earlier included.
int64_t Wanted(const PruneAmount& amount, int64_t size, int64_t removed) {
  if (amount.sparsity) return std::max(removed, Portion(*amount.sparsity, size));
  return removed + Portion(*amount.fraction_of_remaining, size - removed);
}

Status CheckFraction(const char* field, double value) {
  if (value >= 0.0 && value <= 1.0) return Ok();
  return Invalid(std::string("prune: ") + field + ": " + std::to_string(value) + " is not a fraction between 0 and 1");
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
    if (options.criterion == Criterion::kRandom) continue;
    if (std::any_of(view.values.begin(), view.values.end(), [](float v) { return std::isnan(v); })) {
      return Error{ErrorCode::kDiverged, "prune: " + view.name + " holds NaN: the training before it diverged"};
    }
  }
  return Ok();
}

std::vector<KeySource> SourcesOf(const PruneOptions& options, std::span<const WeightView> weights,
                                 const std::vector<model::Mask>& masks, const PruneDraw& draw) {
  std::vector<KeySource> sources;
  for (size_t t = 0; t < weights.size(); ++t) {
    if (options.criterion == Criterion::kRandom) {
      RandomStream stream(draw.seed, RandomPurpose::kPruneRandom, weights[t].ordinal, static_cast<uint64_t>(draw.draw));
      sources.emplace_back(stream, masks[t]);
    } else {
      sources.emplace_back(weights[t].values, masks[t]);
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

Status PruneTogether(const PruneAmount& amount, std::span<const Quota> quotas, std::span<const KeySource> sources,
                     std::span<model::Mask> masks) {
  Quota sum;
  std::vector<Bounds> bounds(sources.size());
  for (size_t t = 0; t < sources.size(); ++t) {
    const Quota& q = quotas[t];
    sum.size += q.size;
    sum.removed += q.removed;
    sum.least += q.least;
    sum.most += q.most;
    if (q.least > q.removed) bounds[t].must = SelectLowest(sources[t], q.least - q.removed);
    if (q.most < q.size) bounds[t].may = SelectLowest(sources[t], q.most - q.removed);
  }
  int64_t target = std::max(Wanted(amount, sum.size, sum.removed), sum.removed);
  if (target < sum.least || target > sum.most) {
    return Invalid("prune: " + std::to_string(target) + " of " + std::to_string(sum.size) +
                   " weights are to be removed, but min_density and max_density allow " + std::to_string(sum.least) +
                   " to " + std::to_string(sum.most));
  }
  RemoveCut(sources, bounds, SelectLowest(sources, bounds, target - sum.least), masks);
  return Ok();
}

Result<double> Fraction(const Json& params, const char* field) {
  ASSIGN_OR_RETURN(double value, NumberField(params, field));
  TRY(CheckFraction(field, value));
  return value;
}

Result<std::vector<std::string>> TensorNames(const Json& params, const model::GraphInfo& info) {
  auto list = params.find("tensors");
  if (list == params.end() || !list->is_array() || list->empty()) {
    return Invalid("prune: field 'tensors': expected a list of tensor names");
  }
  std::vector<std::string> asked, names;
  for (const Json& name : *list) {
    if (!name.is_string()) return Invalid("prune: field 'tensors': expected strings");
    asked.push_back(name.get<std::string>());
  }
  std::sort(asked.begin(), asked.end());
  if (auto twice = std::adjacent_find(asked.begin(), asked.end()); twice != asked.end()) {
    return Invalid("prune: field 'tensors': " + *twice + " is named twice");
  }
  for (const model::TensorSpec& spec : info.tensors) {
    if (!std::binary_search(asked.begin(), asked.end(), spec.name)) continue;
    if (!spec.prunable) return Invalid("prune: field 'tensors': " + spec.name + " is not a prunable weight");
    names.push_back(spec.name);
  }
  for (const std::string& name : asked) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return Invalid("prune: field 'tensors': the model has no tensor " + name);
    }
  }
  return names;
}

}  // namespace

Result<PruneOptions> PruneOptionsFromJson(const Json& params, const model::GraphInfo& info) {
  PruneOptions options;
  ASSIGN_OR_RETURN(std::string criterion, StringField(params, "criterion"));
  if (criterion == "magnitude_l1") options.criterion = Criterion::kMagnitudeL1;
  else if (criterion == "magnitude_l2") options.criterion = Criterion::kMagnitudeL2;
  else if (criterion == "random") options.criterion = Criterion::kRandom;
  else return Invalid("prune: field 'criterion': '" + criterion + "' is not one of magnitude_l1, magnitude_l2, random");
  ASSIGN_OR_RETURN(std::string scope, StringField(params, "scope"));
  if (scope == "layer") options.scope = Scope::kLayer;
  else if (scope == "global") options.scope = Scope::kGlobal;
  else return Invalid("prune: field 'scope': '" + scope + "' is not one of layer, global");
  ASSIGN_OR_RETURN(options.min_density, Fraction(params, "min_density"));
  ASSIGN_OR_RETURN(options.max_density, Fraction(params, "max_density"));
  if (options.min_density > options.max_density) return Invalid("prune: field 'min_density' is above 'max_density'");
  ASSIGN_OR_RETURN(options.tensors, TensorNames(params, info));
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
  std::vector<model::Mask> before;
  std::vector<Quota> quotas;
  for (const WeightView& view : weights) {
    auto mask = masks.find(view.name);
    if (mask != masks.end() && mask->second.shape() != view.shape) {
      return Invalid("prune: the mask of " + view.name + " has shape " + model::ToString(mask->second.shape()) +
                     ", the tensor " + model::ToString(view.shape));
    }
    before.push_back(mask == masks.end() ? model::Mask(view.shape) : mask->second);
    quotas.push_back(QuotaOf(options, before.back()));
  }
  std::vector<model::Mask> after = before;
  std::vector<KeySource> sources = SourcesOf(options, weights, before, draw);
  if (options.scope == Scope::kLayer) {
    PruneEachLayer(amount, quotas, sources, after);
  } else {
    TRY(PruneTogether(amount, quotas, sources, after));
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
