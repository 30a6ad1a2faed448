// Evaluation of a network on samples of a split. One thread calls.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "model/graph.h"
#include "worker/engine/network.h"

namespace pare::runner {

inline constexpr int64_t kEvaluationBatch = 500;  // largest number of samples per batch

// The samples of `rows` of a split, not augmented, in that order. REQUIRES: split and spec outlive it, and what `rows` spans.
engine::SampleSource SamplesOf(const data::Split& split, const data::DataSpec& spec, std::span<const uint32_t> rows);

struct EvaluationCounts {
  int64_t correct = 0, total = 0;
  double loss = 0.0;  // mean
};
// REQUIRES: the network was made with max_batch ≥ kEvaluationBatch; rows not empty. If `bitmap` is not null it becomes
// one bit per row: bit i of byte i/8 is set when row i is classified correctly.
EvaluationCounts EvaluateRows(engine::Network& network, const data::Split& split, const data::DataSpec& spec,
                              std::span<const uint32_t> rows, std::string* bitmap);

// Percent.
double Percent(int64_t correct, int64_t total);
// 95 % Wilson score interval in percent (Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4). REQUIRES: total > 0.
struct Interval {
  double low = 0.0, high = 0.0;
};
Interval WilsonInterval(int64_t correct, int64_t total);

// Two models on the same samples, from the bitmaps of EvaluateRows.
struct PairedCounts {
  int64_t only_first = 0, only_second = 0;  // correct by one of them alone
};
PairedCounts CountPairs(std::string_view first, std::string_view second, int64_t total);
// 95 % interval of accuracy(second) − accuracy(first) in percentage points: adjusted Wald for matched pairs, half a sample
// added to each of the four cells (Agresti, Min 2005, "Simple improved confidence intervals for comparing matched
// proportions"). REQUIRES: total > 0.
Interval PairedInterval(const PairedCounts& counts, int64_t total);

// kInvalid: the graph takes other samples than the dataset has, or has fewer classes, or the normalization does not fit.
Status CheckFits(const model::Graph& graph, const model::GraphInfo& info, const data::Dataset& dataset,
                 const data::DataSpec& spec);

}  // namespace pare::runner
