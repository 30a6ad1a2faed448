// Spectrum: what one decomposition of every layer leaves, for any number of low_rank steps: squared singular values and
// factors of every rank that saves something. And those low_rank steps: ranks looked up, nodes rewritten.
//
// Blob format of the artifact "spectrum": a safetensors file with, for every tensor that was decomposed,
//   "energies/<tensor>"  F64 [min(rows, columns)], squared singular values of W (whitened: of W·L), descending
//   "up/<tensor>"        F32 [rows, k], "down/<tensor>" F32 [k, columns]; k the largest rank that saves (absent if 0)
// and "layers": U8, canonical JSON {"conv", "whitened", "calibration_samples", "layers": [{"tensor", "rows", "columns",
// "weight": digest of the decomposed tensor, "ridge" | "reason": why it was not decomposed}]}.
// k·(rows + columns) < rows·columns, so the blob is smaller than the weights it comes from.
//
// Pure functions, no thread rule. Errors: kInvalid names layer and remedy; kCorrupt: a blob that is none.
#pragma once

#include <string>
#include <vector>

#include "methods/low_rank.h"
#include "methods/ranks.h"

namespace pare::methods {

struct LayerSpectrum {
  std::string tensor;
  Digest weight;
  int64_t rows = 0, columns = 0;
  std::vector<double> energies;
  model::Tensor up, down;  // no elements to speak of (default) if no rank saves
  double ridge = 0;
  std::string reason;  // not empty: it was not decomposed
};
struct Spectrum {
  ConvForm conv = ConvForm::kChannel;
  bool whitened = false;
  int64_t calibration_samples = 0;
  std::vector<LayerSpectrum> layers;
};
model::TensorMap ToTensors(const Spectrum& spectrum);
Result<Spectrum> SpectrumFromTensors(const model::TensorMap& tensors);

// The layers as ChooseRanks takes them, for the weights `tensors` of the present model. kInvalid: a layer that the spectrum
// does not have, or that has other weights now.
Result<std::vector<RankedLayer>> RankedLayers(const Model& model, const Spectrum& spectrum, const std::vector<std::string>& tensors);

// The step low_rank. `report`: one entry per layer, {"layer", "tensor", "rank", "of": [rows, columns], "largest_rank", "energy"}
// and, for one that stays as it is, "left_alone": the reason. With `output_layer` false the layer that makes the outputs does: it is
// small, and of n classes fewer than n directions merge some (docs/evidence/low_rank.md). A mask that ends with its tensor: "mask": "ended".
struct LowRankResult {
  Model model;
  Json report = Json::array();
};
Result<LowRankResult> LowRank(Model model, const Spectrum& spectrum, const Json& params);

// What a spectrum step's results say: per layer rows, columns, largest_rank and the ranks at common energies, and the frontier
// of the model.
Json SpectrumResults(const std::vector<RankedLayer>& layers, const Spectrum& spectrum);

// At planning time: the layers become pairs, with as many weights as the params promise (energy: unknown, the present number
// is told as an upper bound). kInvalid: a layer that is not float32, adapters that wait to be merged.
Result<Outline> OutlineLowRank(Outline outline, const Json& params);

}  // namespace pare::methods
