// Ranks from spectra: energy threshold, one budget for all layers, or a fixed rank; a lookup, never a decomposition
// (METHODS, section 2).
//
// The energy of a rank r is Σ_{i≤r} σ_i² / Σ σ_i². The loss of a layer at rank r is what is missing to 1; a layer that
// stays as it is has none. Pure functions on plain values, no thread rule.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace pare::methods {

// One layer: squared singular values, descending, and what it costs now and per unit of rank.
struct RankedLayer {
  std::string tensor;
  int64_t rows = 0, columns = 0;
  std::vector<double> energies;
  int64_t kept = 0;  // weights that the tensor keeps: rows · columns less what its mask removes
  int64_t multiply_adds = 0, multiply_adds_per_rank = 0;
};

enum class BudgetOf : uint8_t { kParameters, kMultiplyAdds, kLatency };

// Exactly one of energy, budget, rank.
struct RankOptions {
  std::optional<double> energy;  // (0, 1]
  std::optional<double> budget;  // (0, 1): fraction of what budget_of counts, of all layers together
  BudgetOf budget_of = BudgetOf::kParameters;
  // Of latency: samples per run, and multiply-adds that the machine does while it reads or writes a byte.
  int64_t batch = 1;
  double machine_balance = 8;
  std::optional<int64_t> rank;
};
Result<RankOptions> RankOptionsFromJson(const Json& params);

// What `options` count of a layer at a rank; 0: as it is. Latency is the roofline's (Williams, Waterman, Patterson 2009),
// max(multiply-adds / machine_balance, bytes moved), in bytes: a model, the same on every machine, so that equal recipes choose
// equal ranks. Bytes are float32 weights, inputs and outputs, and between two factors what one writes and the other reads.
double CostOf(const RankedLayer& layer, int64_t rank, const RankOptions& options);

struct RankChoice {
  std::string tensor;
  int64_t rank = 0;     // 0: the layer stays as it is, `reason` says why
  int64_t largest = 0;  // the largest rank that saves parameters
  double energy = 1.0;  // kept
  std::string reason;
};
// The smallest r with Σ_{i≤r} energies ≥ threshold · Σ energies; 0 if all are zero.
int64_t RankForEnergy(const std::vector<double>& energies, double threshold);
double EnergyOfRank(const std::vector<double>& energies, int64_t rank);
// In the order of `layers`. kInvalid: a budget below what rank 1 of every layer costs (says how much that is).
//
// Budget: from rank 1 everywhere, the step with the largest gain of energy per cost over all layers
// comes next, along each layer's convex hull of (cost, loss), whose last point is the layer as it is; what is left at the
// end goes to single ranks that still fit. Ties: order of the layers.
Result<std::vector<RankChoice>> ChooseRanks(const std::vector<RankedLayer>& layers, const RankOptions& options);

// The whole frontier: for thresholds descending, what all layers keep together at that energy.
struct FrontierPoint {
  double energy = 0;
  int64_t parameters = 0, multiply_adds = 0;
};
std::vector<FrontierPoint> Frontier(const std::vector<RankedLayer>& layers, const std::vector<double>& thresholds);

}  // namespace pare::methods
