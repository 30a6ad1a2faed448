// Dataset: labelled samples in host memory, read from idx(.gz), npy/npz or CSV, and their identity by content.
//
// The flow: DataRequest (from a recipe) → Load → Dataset → EncodeDataset → a blob that every worker reads without the
// original files. The fingerprint is a digest over decoded content: gz or not, idx or npy, same samples same fingerprint.
// Plain values, no thread rule. Errors name the file, the byte or line, what was found and what is allowed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/digest.h"
#include "common/json.h"
#include "model/tensor.h"

namespace pare::data {

// The `data:` section of a recipe, paths as the user wrote them.
struct DataRequest {
  std::string dataset;    // built-in name ("fashion-mnist"), or empty when files are given
  std::string directory;  // where a built-in dataset lies; empty: its default place
  std::string format;     // idx, npy, npz, csv; empty: by file name
  std::string train, train_labels, test, test_labels;  // files; npz and csv hold images and labels in one
  std::string label_column = "label";                  // csv: column name, or its zero-based number
  model::Shape shape;     // csv: sample shape, e.g. [1, 28, 28]; empty: [columns − 1]
  bool operator==(const DataRequest&) const = default;
};

struct Split {
  model::Tensor samples;  // kU8 or kF32, [n, …sample shape]; greyscale idx images become [n, 1, height, width]
  model::Tensor labels;   // kI64 [n], each in [0, classes)
};

struct Dataset {
  Split train, test;    // validation is cut from train by SplitIndices, never stored apart
  int64_t classes = 0;  // largest label + 1, over both splits
  Digest fingerprint() const;
};

// Reads the files. kInvalid: file missing (names the Debian package for a built-in), truncated, corrupt, wrong magic, counts of images and labels differ, label negative or not an integer, NaN in samples, empty split, different
// sample shapes in train and test.
Result<Dataset> Load(const DataRequest& request);

// Where a sample has a value that a vocabulary has to be held against.
struct IdPlace {
  double value = 0;
  std::string split;  // "train" or "test"
  int64_t sample = 0, position = 0;
  bool operator==(const IdPlace&) const = default;
};

// What planning needs to know about a dataset; stored in the resolved recipe.
struct DataInfo {
  Digest fingerprint;
  Digest blob;        // EncodeDataset's bytes in the blob store; none: workers read `request` themselves (large data) and
                      // check the fingerprint
  DataRequest request;
  model::Shape sample_shape;
  std::string dtype;  // "U8" or "F32"
  int64_t classes = 0, train_count = 0, test_count = 0;
  // Per channel over the training split, after scaling kU8 to [0, 1]; what `normalize: standard` uses.
  std::vector<double> mean, deviation;
  // Of samples that are vectors, which may be token ids: the first value that is none (negative or no integer), else the largest.
  std::optional<IdPlace> largest_id;
  bool operator==(const DataInfo&) const = default;
};
// Says what is wrong with the samples as ids 0 to vocabulary − 1. kInvalid names the sample.
Status CheckIds(const DataInfo& info, int64_t vocabulary);
DataInfo Describe(const Dataset& dataset, const DataRequest& request);
Json ToJson(const DataInfo& info);
Result<DataInfo> DataInfoFromJson(const Json& json);

// Larger datasets are not copied into the store.
inline constexpr int64_t kMaxDatasetBlobBytes = int64_t{2} << 30;

// One safetensors file with train.samples, train.labels, test.samples, test.labels.
std::string EncodeDataset(const Dataset& dataset);
// Views `bytes` without copying samples; `keep_alive` owns them.
Result<Dataset> DecodeDataset(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive);

// Deterministic cut of the training split: `validation` samples, stratified by nothing, drawn by (seed, kSplit).
struct SplitIndices {
  std::vector<uint32_t> train, validation;  // ascending
};
SplitIndices CutValidation(int64_t train_count, int64_t validation, uint64_t seed);

// How a step reads the data; part of its key (recipes/step.h: StepSpec.data). JSON: {"fingerprint", "validation",
// "split_seed", "offset": […per channel], "scale": […], "flip", "shift"}.
struct DataSpec {
  Digest fingerprint;
  int64_t validation = 0;
  uint64_t split_seed = 0;
  // Per channel: value = (raw · (dtype U8 ? 1/255 : 1) − offset) · scale.
  std::vector<double> offset, scale;
  bool flip = false;   // horizontal flips with probability 1/2, training only
  int64_t shift = 0;   // shifts by up to this many pixels in each direction, zero-filled, training only
  bool operator==(const DataSpec&) const = default;
};
Json ToJson(const DataSpec& spec);
Result<DataSpec> DataSpecFromJson(const Json& json);

// Gathers samples `rows` of a split as float32 into `out` [rows.size(), …sample shape], normalized. Vectorized: this is on
// the training path. REQUIRES: out.size() fits.
void Gather(const Split& split, const DataSpec& spec, std::span<const uint32_t> rows, std::span<float> out);
// The same with augmentation; draws are keyed by (seed, epoch, row), never by order.
void GatherAugmented(const Split& split, const DataSpec& spec, std::span<const uint32_t> rows, uint64_t seed,
                     int64_t epoch, std::span<float> out);
void GatherLabels(const Split& split, std::span<const uint32_t> rows, std::span<int64_t> out);

}  // namespace pare::data
