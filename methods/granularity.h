// Granularity: what one decision of pruning removes: a weight, n of m neighbours, a block, or a whole unit of the network.
//
// In JSON (docs/formats.md), absent for single weights: {"kind": "n_m", "n": 2, "m": 4}, {"kind": "block", "rows": 4,
// "columns": 1}, {"kind": "structured", "unit": "channel" | "head" | "layer", "round_to": 1}.
// n_m and block see a weight as the matrix [out, in·kh·kw]. Plain values, no thread rule; errors are kInvalid.
#pragma once

#include <cstdint>
#include <string>

#include "common/json.h"
#include "model/mask.h"

namespace pare::methods {

enum class GranularityKind { kWeight, kNofM, kBlock, kStructured };
enum class UnitKind { kChannel, kHead, kLayer };

struct Granularity {
  GranularityKind kind = GranularityKind::kWeight;
  int64_t n = 0, m = 0;              // n_m: keep the best n of every m
  int64_t rows = 1, columns = 1;     // block
  UnitKind unit = UnitKind::kChannel;
  int64_t round_to = 1;              // structured: widths left are multiples of it
};
inline constexpr int64_t kMaxBlockSide = 1 << 20, kMaxGroup = 1024, kMaxRoundTo = 1 << 20;

// Reads `granularity` of a step's parameters; absent: single weights.
Result<Granularity> GranularityFromJson(const Json& params);

// A weight's shape as a matrix.
struct MatrixShape {
  int64_t rows = 0, columns = 0;
};
MatrixShape MatrixOf(const model::Shape& shape);

// kInvalid, with a remedy, if m does not divide the rows of `tensor`.
Status CheckGroups(const Granularity& granularity, const std::string& tensor, const model::Shape& shape);

}  // namespace pare::methods
