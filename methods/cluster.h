// Weight clustering (Han 2016, "Deep Compression", section 3): the weights of a layer share 2^bits values, found by k-means on
// the line. The layer becomes the encoding "codebook" (model/encoding.h): codes and values. Training it afterwards moves the
// shared values, as in the paper; the checkpoint codec spends on a code what it carries.
//
//  - On a line the best clusters are runs of the sorted weights, and dynamic programming finds them (Wang & Song 2011,
//    Ckmeans.1d.dp): exactly for up to kMaxCuts weights; more are first taken in kMaxCuts runs of equal numbers, and Lloyd's
//    iterations on all of them follow until nothing moves, at most kMaxIterations. Sums are doubles in sorted order: the same
//    anywhere.
//  - Code 0 is the value 0, for weights that a mask removed or that are zero; it never moves. The others are shared by the
//    remaining weights in rising order, 2^bits − 1 of them at most; one that no weight uses is dropped.
//  - A layer with fewer than kMinWeightsPerValue weights per value is left alone, with the reason.
// Errors: kInvalid names field or tensor; kDiverged: a weight is not finite. Pure, no thread rule.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "methods/registry.h"
#include "model/encoding.h"

namespace pare::methods {

inline constexpr int kMaxIterations = 200;
inline constexpr size_t kMaxCuts = 4096;
inline constexpr int64_t kMinWeightsPerValue = 8;

struct LayerClusters {
  std::string layer;    // node
  bool clustered = false;
  std::string reason;   // why not
  int64_t values = 0;   // distinct ones, zero not counted
  double error = 0.0;   // ‖w − ŵ‖ / ‖w‖
};
Json ToJson(const LayerClusters& layer);

// The shared values for `weights` (none zero), rising. REQUIRES: count ≥ 1, weights not empty.
std::vector<float> ClusterValues(std::span<const float> weights, int64_t count);

struct Clustered {
  Model model;
  std::vector<LayerClusters> layers;
};
Result<Clustered> ClusterWeights(Model model, const std::vector<std::string>& tensors, int bits);

}  // namespace pare::methods
