#include "methods/ranks.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/low_rank.h"

namespace pare::methods {
namespace {

Error Invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

std::string Short(double value) { return Json(value).dump(); }

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

constexpr const char* kBudgets[] = {"parameters", "multiply_adds", "latency"};  // in the order of BudgetOf
std::string NameOf(BudgetOf of) { return kBudgets[static_cast<size_t>(of)]; }

// One choice of one layer. rank 0: the layer as it is.
struct Point {
  int64_t rank = 0;
  double cost = 0, loss = 0;
};

struct Candidate {
  std::vector<Point> points;   // by cost: ranks 1 … largest, then the layer as it is
  std::vector<size_t> hull;    // indices of its lower convex hull, from the first to the last
  size_t at = 0;               // the present choice
};

// Positive where b lies below the line from a to c.
double Below(const Point& a, const Point& b, const Point& c) {
  return (a.loss - b.loss) * (c.cost - a.cost) - (a.loss - c.loss) * (b.cost - a.cost);
}

double Gain(const Point& from, const Point& to) { return (from.loss - to.loss) / (to.cost - from.cost); }

Candidate CandidateOf(const RankedLayer& layer, int64_t largest, const RankOptions& options) {
  Candidate c;
  double whole = CostOf(layer, 0, options), total = Sum(layer.energies), kept = 0;
  for (int64_t r = 1; r <= largest; ++r) {
    double cost = CostOf(layer, r, options);
    if (cost >= whole) break;
    kept += layer.energies[static_cast<size_t>(r - 1)];
    double loss = total > 0 ? std::max(0.0, 1 - kept / total) : 0;
    // A roofline may be flat: of equal costs the larger rank.
    if (!c.points.empty() && c.points.back().cost == cost) c.points.pop_back();
    c.points.push_back({r, cost, loss});
  }
  c.points.push_back({0, whole, 0});
  for (size_t i = 0; i < c.points.size(); ++i) {
    while (c.hull.size() >= 2 && Below(c.points[c.hull[c.hull.size() - 2]], c.points[c.hull.back()], c.points[i]) <= 0) c.hull.pop_back();
    c.hull.push_back(i);
  }
  return c;
}

struct Segment {
  double gain = 0;
  size_t layer = 0, from = 0, to = 0;  // indices of points
};

// Along the hulls, best gain first; a layer whose next segment does not fit is done with.
void TakeSegments(std::vector<Candidate>& candidates, double& left) {
  std::vector<Segment> segments;
  for (size_t l = 0; l < candidates.size(); ++l) {
    const Candidate& c = candidates[l];
    for (size_t h = 0; h + 1 < c.hull.size(); ++h) segments.push_back({Gain(c.points[c.hull[h]], c.points[c.hull[h + 1]]), l, c.hull[h], c.hull[h + 1]});
  }
  std::stable_sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) { return a.gain > b.gain; });
  for (const Segment& s : segments) {
    Candidate& c = candidates[s.layer];
    double cost = c.points[s.to].cost - c.points[s.from].cost;
    if (c.at != s.from || cost > left) continue;
    c.at = s.to;
    left -= cost;
  }
}

// Single steps with what is left.
void FillUp(std::vector<Candidate>& candidates, double& left) {
  for (;;) {
    Candidate* best = nullptr;
    double best_gain = 0;
    for (Candidate& c : candidates) {
      if (c.at + 1 >= c.points.size() || c.points[c.at + 1].cost - c.points[c.at].cost > left) continue;
      double gain = Gain(c.points[c.at], c.points[c.at + 1]);
      if (best == nullptr || gain > best_gain) best = &c, best_gain = gain;
    }
    if (best == nullptr) return;
    left -= best->points[best->at + 1].cost - best->points[best->at].cost;
    ++best->at;
  }
}

RankChoice Choice(const RankedLayer& layer, int64_t rank, int64_t largest, std::string reason) {
  return {layer.tensor, rank, largest, rank == 0 ? 1.0 : EnergyOfRank(layer.energies, rank), std::move(reason)};
}

int64_t LargestOf(const RankedLayer& layer) {
  return std::min(LargestRank(layer.rows, layer.columns, layer.kept), static_cast<int64_t>(layer.energies.size()));
}

std::string NothingSaves(const RankedLayer& layer, int64_t largest) {
  std::string of = std::to_string(layer.rows) + "x" + std::to_string(layer.columns);
  if (layer.kept < layer.rows * layer.columns) of += " pruned to " + std::to_string(layer.kept) + " weights";
  return largest == 0 ? "no rank of " + of + " saves parameters" : "of " + of + " only ranks up to " + std::to_string(largest) + " save parameters";
}

Result<std::vector<RankChoice>> SpreadBudget(const std::vector<RankedLayer>& layers, const RankOptions& options) {
  std::vector<Candidate> candidates;
  double whole = 0, least = 0;
  for (const RankedLayer& layer : layers) {
    candidates.push_back(CandidateOf(layer, LargestOf(layer), options));
    whole += candidates.back().points.back().cost;
    least += candidates.back().points.front().cost;
  }
  double left = *options.budget * whole - least;
  if (left < 0) {
    return Invalid("low_rank: budget " + Short(*options.budget) + ": rank 1 everywhere keeps " + Short(std::ceil(least / whole * 1e4) / 1e4) +
                   " of the " + NameOf(options.budget_of) + " already; raise budget");
  }
  TakeSegments(candidates, left);
  FillUp(candidates, left);
  std::vector<RankChoice> choices;
  for (size_t l = 0; l < layers.size(); ++l) {
    const Candidate& c = candidates[l];
    int64_t rank = c.points[c.at].rank, largest = LargestOf(layers[l]);
    bool alone = c.points.size() == 1;
    choices.push_back(Choice(layers[l], rank, largest, rank > 0 ? "" : alone ? NothingSaves(layers[l], largest) : "within the budget as it is"));
  }
  return choices;
}

}  // namespace

double CostOf(const RankedLayer& layer, int64_t rank, const RankOptions& options) {
  double r = static_cast<double>(rank), edges = static_cast<double>(layer.rows + layer.columns);
  double parameters = rank == 0 ? static_cast<double>(layer.kept) : r * edges;
  double multiply_adds = rank == 0 ? static_cast<double>(layer.multiply_adds) : r * static_cast<double>(layer.multiply_adds_per_rank);
  if (options.budget_of == BudgetOf::kParameters) return parameters;
  if (options.budget_of == BudgetOf::kMultiplyAdds) return multiply_adds;
  double batch = static_cast<double>(options.batch);
  double positions = static_cast<double>(layer.multiply_adds) / static_cast<double>(layer.rows * layer.columns);  // where the matrix is applied
  double bytes = sizeof(float) * (parameters + batch * positions * (edges + 2 * r));
  return std::max(batch * multiply_adds / options.machine_balance, bytes);
}

Result<RankOptions> RankOptionsFromJson(const Json& params) {
  RankOptions o;
  int given = 0;
  for (const char* field : {"energy", "budget", "rank"}) given += params.contains(field);
  if (given != 1) return Invalid("low_rank: exactly one of energy, budget and rank must be given");
  if (params.contains("energy")) {
    ASSIGN_OR_RETURN(o.energy, NumberField(params, "energy"));
    if (!(*o.energy > 0 && *o.energy <= 1)) return Invalid("low_rank: energy: " + Short(*o.energy) + " is not above 0 and at most 1");
  } else if (params.contains("budget")) {
    ASSIGN_OR_RETURN(o.budget, NumberField(params, "budget"));
    if (!(*o.budget > 0 && *o.budget < 1)) return Invalid("low_rank: budget: " + Short(*o.budget) + " is not between 0 and 1");
    ASSIGN_OR_RETURN(std::string of, StringField(params, "budget_of"));
    auto known = std::find(std::begin(kBudgets), std::end(kBudgets), of);
    if (known == std::end(kBudgets)) return Invalid("low_rank: budget_of: '" + of + "' is not one of parameters, multiply_adds, latency");
    o.budget_of = static_cast<BudgetOf>(known - std::begin(kBudgets));
    if (o.budget_of == BudgetOf::kLatency) {
      ASSIGN_OR_RETURN(o.batch, IntField(params, "batch"));
      ASSIGN_OR_RETURN(o.machine_balance, NumberField(params, "machine_balance"));
      if (o.batch < 1) return Invalid("low_rank: batch: " + std::to_string(o.batch) + " is not at least 1");
      if (!(o.machine_balance > 0)) return Invalid("low_rank: machine_balance: " + Short(o.machine_balance) + " is not above 0");
    }
  } else {
    ASSIGN_OR_RETURN(o.rank, IntField(params, "rank"));
    if (*o.rank < 1) return Invalid("low_rank: rank: " + std::to_string(*o.rank) + " is not at least 1");
  }
  return o;
}

int64_t RankForEnergy(const std::vector<double>& energies, double threshold) {
  double total = Sum(energies), kept = 0;
  if (total <= 0) return 0;
  int64_t rank = 0;
  while (rank < static_cast<int64_t>(energies.size()) && (rank == 0 || kept < threshold * total)) kept += energies[static_cast<size_t>(rank++)];
  return rank;
}

double EnergyOfRank(const std::vector<double>& energies, int64_t rank) {
  double total = Sum(energies);
  if (total <= 0) return 1.0;
  return std::min(1.0, std::accumulate(energies.begin(), energies.begin() + std::min<int64_t>(rank, static_cast<int64_t>(energies.size())), 0.0) / total);
}

Result<std::vector<RankChoice>> ChooseRanks(const std::vector<RankedLayer>& layers, const RankOptions& options) {
  if (options.budget) return SpreadBudget(layers, options);
  std::vector<RankChoice> choices;
  for (const RankedLayer& layer : layers) {
    int64_t largest = LargestOf(layer), wanted = options.rank ? *options.rank : RankForEnergy(layer.energies, *options.energy);
    if (wanted >= 1 && wanted <= largest) {
      choices.push_back(Choice(layer, wanted, largest, ""));
    } else if (wanted == 0) {
      choices.push_back(Choice(layer, 0, largest, "all its weights are zero"));
    } else {
      std::string asked = options.rank ? "rank " + std::to_string(wanted) : Short(*options.energy) + " of the energy needs rank " + std::to_string(wanted);
      choices.push_back(Choice(layer, 0, largest, asked + "; " + NothingSaves(layer, largest)));
    }
  }
  return choices;
}

std::vector<FrontierPoint> Frontier(const std::vector<RankedLayer>& layers, const std::vector<double>& thresholds) {
  std::vector<FrontierPoint> points;
  for (double threshold : thresholds) {
    FrontierPoint p{threshold, 0, 0};
    for (const RankedLayer& layer : layers) {
      int64_t rank = RankForEnergy(layer.energies, threshold);
      bool saves = rank >= 1 && rank <= LargestOf(layer);
      p.parameters += saves ? rank * (layer.rows + layer.columns) : layer.kept;
      p.multiply_adds += saves ? rank * layer.multiply_adds_per_rank : layer.multiply_adds;
    }
    points.push_back(p);
  }
  return points;
}

}  // namespace pare::methods
