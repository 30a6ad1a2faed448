#include "methods/prune_units.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace pare::methods {
namespace {

struct Scored {
  const WeightView* view;
  ScoreSource scores;
  const model::Mask* mask;  // null: all kept
};

bool Kept(const Scored& tensor, int64_t i) { return tensor.mask == nullptr || tensor.mask->keeps(i); }

// What the units of one class are worth, and which are still there.
KeySource SourceOf(const PruneOptions& options, const PrunableClass& c, const std::map<std::string, Scored>& tensors, const PruneDraw& draw) {
  std::vector<uint32_t> keys(c.units.size());
  std::vector<uint8_t> live(c.units.size(), 0);
  RandomStream stream(draw.seed, RandomPurpose::kPruneRandom, c.ordinal, static_cast<uint64_t>(draw.draw));
  for (size_t u = 0; u < c.units.size(); ++u) {
    double sum = 0.0;
    for (const Slice& slice : c.units[u].weights) {
      const Scored& tensor = tensors.at(slice.tensor);
      ForEachIndex(tensor.view->shape, slice, [&](int64_t i) {
        if (!Kept(tensor, i)) return;
        live[u] = 1;
        if (options.criterion != Criterion::kRandom) sum += tensor.scores.At(static_cast<size_t>(i));
      });
    }
    keys[u] = options.criterion == Criterion::kRandom ? stream.Block(u / 4)[u % 4] : KeyOfScore(static_cast<float>(sum));
  }
  return {std::move(keys), std::move(live)};
}

// How many units are gone afterwards, when `removed` of `q.size` were to be.
int64_t Rounded(const Quota& q, int64_t removed, int64_t multiple) {
  if (multiple <= 1 || q.size < multiple) return q.size < multiple ? q.removed : removed;
  int64_t there = q.size - q.removed, kept = std::max(multiple, (q.size - removed + multiple / 2) / multiple * multiple);
  // The bounds of the density hold: to the next multiple within them, if there is one.
  if (kept < q.size - q.most) kept += multiple;
  if (kept > q.size - q.least && kept - multiple >= q.size - q.most) kept -= multiple;
  if (kept > there) kept = there / multiple * multiple;
  return kept == 0 || kept < q.size - q.most ? q.removed : q.size - kept;
}

void MaskUnit(const PrunableUnit& unit, const UnitPlan& plan, model::MaskMap& masks) {
  for (const auto* slices : {&unit.weights, &unit.own}) {
    for (const Slice& slice : *slices) {
      const model::Shape& shape = plan.shapes.at(slice.tensor);
      model::Mask& mask = masks.try_emplace(slice.tensor, shape).first->second;
      ForEachIndex(shape, slice, [&](int64_t i) { mask.set(i, false); });
    }
  }
}

}  // namespace

Result<model::MaskMap> PruneUnits(const PruneOptions& options, const PruneAmount& amount, std::span<const WeightView> weights,
                                  const model::MaskMap& masks, const PruneDraw& draw) {
  CHECK(options.units != nullptr);
  std::map<std::string, Scored> tensors;
  for (const WeightView& view : weights) {
    auto mask = masks.find(view.name);
    tensors.emplace(view.name, Scored{&view, ScoresOf(options.criterion, view, view.ordinal, draw), mask == masks.end() ? nullptr : &mask->second});
  }
  const std::vector<PrunableClass>& classes = options.units->classes;
  std::vector<KeySource> sources;
  std::vector<Quota> quotas;
  for (const PrunableClass& c : classes) {
    sources.push_back(SourceOf(options, c, tensors, draw));
    quotas.push_back(QuotaOf(options, sources.back()));
    Quota& q = quotas.back();
    if (c.keep_one) q.most = std::max(q.removed, std::min(q.most, q.size - 1)), q.least = std::min(q.least, q.most);
  }
  std::vector<int64_t> targets;
  if (options.scope == Scope::kLayer) {
    for (const Quota& q : quotas) targets.push_back(std::clamp(Wanted(amount, q.size, q.removed), q.least, q.most));
  } else {
    ASSIGN_OR_RETURN(Ranking ranking, RankTogether(amount, quotas, sources));
    for (const Quota& q : quotas) targets.push_back(q.removed);
    ForEachTaken(sources, ranking.bounds, ranking.cut, [&](size_t c, int64_t) { ++targets[c]; });
  }
  model::MaskMap result = masks;
  for (const WeightView& view : weights) result.try_emplace(view.name, view.shape);
  const Bounds all;
  for (size_t c = 0; c < classes.size(); ++c) {
    int64_t target = Rounded(quotas[c], targets[c], options.granularity.round_to);
    Cut cut = SelectLowest(sources[c], target - quotas[c].removed);
    ForEachTaken(std::span(&sources[c], 1), std::span(&all, 1), cut,
                 [&](size_t, int64_t unit) { MaskUnit(classes[c].units[static_cast<size_t>(unit)], *options.units, result); });
  }
  return result;
}

}  // namespace pare::methods
