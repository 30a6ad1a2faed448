#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <future>

#include "common/files.h"
#include "common/random.h"
#include "data/readers.h"
#include "model/safetensors.h"

namespace pare::data {
namespace {

using model::DType;
using model::Shape;
using model::Tensor;

constexpr int64_t kMaxClasses = 1'000'000;
constexpr const char* kFashionDirectory = "/usr/share/datasets/fashion-mnist";

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, text}; }

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string FormatOf(const DataRequest& request) {
  if (!request.format.empty()) return request.format;
  for (const char* format : {"npy", "npz", "csv"}) {
    if (EndsWith(request.train, std::string(".") + format)) return format;
  }
  return "idx";
}

// Labels of any integer type (or floats that are integers) as kI64.
Result<Tensor> ToLabels(const Tensor& raw, const std::string& path) {
  if (raw.shape().size() != 1) return Bad(path + ": labels must be one number per sample, found shape " + model::ToString(raw.shape()));
  Tensor labels(DType::kI64, raw.shape());
  auto out = labels.mutable_values<int64_t>();
  for (size_t i = 0; i < out.size(); ++i) {
    double v = 0;
    switch (raw.dtype()) {
      case DType::kU8: case DType::kBool: v = raw.values<uint8_t>()[i]; break;
      case DType::kI8: v = raw.values<int8_t>()[i]; break;
      case DType::kI16: v = raw.values<int16_t>()[i]; break;
      case DType::kI32: v = raw.values<int32_t>()[i]; break;
      case DType::kI64: v = static_cast<double>(raw.values<int64_t>()[i]); break;
      case DType::kF32: v = raw.values<float>()[i]; break;
      case DType::kF64: v = raw.values<double>()[i]; break;
      default: return Bad(path + ": labels of type " + std::string(model::ToString(raw.dtype())) + " are not read");
    }
    if (!(v >= 0) || v != std::floor(v) || v >= static_cast<double>(kMaxClasses)) {
      return Bad(path + ": label " + std::to_string(v) + " of sample " + std::to_string(i) + " is not a class number from 0 to 999999");
    }
    out[i] = static_cast<int64_t>(v);
  }
  return labels;
}

// Samples as kU8 or kF32; images without a channel dimension get one.
Result<Tensor> ToSamples(const Tensor& raw, const std::string& path) {
  Shape shape = raw.shape();
  if (shape.size() < 2) return Bad(path + ": samples need at least two dimensions, found " + model::ToString(shape));
  if (shape.size() == 3) shape.insert(shape.begin() + 1, 1);
  if (raw.dtype() == DType::kU8) return Tensor(DType::kU8, shape, raw.bytes(), raw.keep_alive());
  Tensor samples(DType::kF32, shape);
  auto out = samples.mutable_values<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    switch (raw.dtype()) {
      case DType::kF32: out[i] = raw.values<float>()[i]; break;
      case DType::kF64: out[i] = static_cast<float>(raw.values<double>()[i]); break;
      case DType::kI8: out[i] = raw.values<int8_t>()[i]; break;
      case DType::kI16: out[i] = raw.values<int16_t>()[i]; break;
      case DType::kI32: out[i] = static_cast<float>(raw.values<int32_t>()[i]); break;
      case DType::kI64: out[i] = static_cast<float>(raw.values<int64_t>()[i]); break;
      default: return Bad(path + ": samples of type " + std::string(model::ToString(raw.dtype())) + " are not read");
    }
    if (!std::isfinite(out[i])) {
      return Bad(path + ": value " + std::to_string(i) + " (sample " + std::to_string(static_cast<int64_t>(i) / (model::ElementCount(shape) / std::max<int64_t>(1, shape[0]))) + ") is not a finite number");
    }
  }
  return samples;
}

Result<Split> MakeSplit(const Tensor& raw_samples, const std::string& samples_path, const Tensor& raw_labels, const std::string& labels_path) {
  ASSIGN_OR_RETURN(Tensor samples, ToSamples(raw_samples, samples_path));
  ASSIGN_OR_RETURN(Tensor labels, ToLabels(raw_labels, labels_path));
  if (samples.shape()[0] != labels.shape()[0]) {
    return Bad(samples_path + " holds " + std::to_string(samples.shape()[0]) + " samples, but " + labels_path + " holds " + std::to_string(labels.shape()[0]) + " labels");
  }
  if (samples.size() == 0) return Bad(samples_path + ": no samples: shape " + model::ToString(samples.shape()));
  return Split{std::move(samples), std::move(labels)};
}

Result<Split> LoadPair(Result<Tensor> (*read)(const std::string&), const std::string& samples, const std::string& labels) {
  if (labels.empty()) return Bad("data: " + samples + " needs a labels file (train_labels, test_labels)");
  ASSIGN_OR_RETURN(Tensor raw_samples, read(samples));
  ASSIGN_OR_RETURN(Tensor raw_labels, read(labels));
  return MakeSplit(raw_samples, samples, raw_labels, labels);
}

Result<Split> LoadNpz(const std::string& path, const char* prefix) {
  ASSIGN_OR_RETURN(model::TensorMap members, ReadNpz(path));
  std::string p = prefix;
  const std::pair<std::string, std::string> kNames[] = {{"x_" + p, "y_" + p}, {p + "_images", p + "_labels"}, {p + "_x", p + "_y"}, {"x", "y"}, {"images", "labels"}};
  for (const auto& [x, y] : kNames) {
    auto samples = members.find(x), labels = members.find(y);
    if (samples != members.end() && labels != members.end()) return MakeSplit(samples->second, path + ":" + x, labels->second, path + ":" + y);
  }
  return Bad(path + ": no arrays x_" + p + " and y_" + p + " (or " + p + "_images and " + p + "_labels, or x and y)");
}

Result<Split> LoadSplit(const DataRequest& r, const std::string& format, bool train) {
  const std::string& samples = train ? r.train : r.test;
  const std::string& labels = train ? r.train_labels : r.test_labels;
  if (samples.empty()) return Bad(std::string("data: '") + (train ? "train" : "test") + "' is missing; give files for train and test, or dataset: fashion-mnist");
  if (format == "idx") return LoadPair(ReadIdx, samples, labels);
  if (format == "npy") return LoadPair(ReadNpy, samples, labels);
  if (format == "npz") return LoadNpz(samples, train ? "train" : "test");
  if (format == "csv") return ReadCsv(samples, r.label_column, r.shape);
  return Bad("data: unknown format '" + format + "'; allowed are idx, npy, npz, csv");
}

Result<DataRequest> ExpandBuiltIn(const DataRequest& request) {
  if (request.dataset.empty()) return request;
  if (request.dataset != "fashion-mnist") return Bad("unknown dataset '" + request.dataset + "'; built in: fashion-mnist (or give files)");
  DataRequest r = request;
  std::string d = (r.directory.empty() ? kFashionDirectory : r.directory) + "/";
  r.format = "idx";
  r.train = d + "train-images-idx3-ubyte.gz";
  r.train_labels = d + "train-labels-idx1-ubyte.gz";
  r.test = d + "t10k-images-idx3-ubyte.gz";
  r.test_labels = d + "t10k-labels-idx1-ubyte.gz";
  return r;
}

Shape SampleShape(const Tensor& samples) { return Shape(samples.shape().begin() + 1, samples.shape().end()); }

bool IsId(double value) { return value >= 0 && value == std::floor(value); }

// Of one split; at least one value.
template <typename T>
IdPlace LargestIdOf(std::span<const T> values, int64_t length, const char* split) {
  size_t place = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!IsId(static_cast<double>(values[i]))) {
      place = i;
      break;
    }
    if (values[i] > values[place]) place = i;
  }
  return {static_cast<double>(values[place]), split, static_cast<int64_t>(place) / length, static_cast<int64_t>(place) % length};
}

IdPlace LargestIdOf(const Split& split, const char* name) {
  int64_t length = split.samples.shape()[1];
  return split.samples.dtype() == DType::kU8 ? LargestIdOf(split.samples.values<uint8_t>(), length, name) : LargestIdOf(split.samples.values<float>(), length, name);
}

int64_t Channels(const Shape& sample) { return sample.size() == 3 ? sample[0] : 1; }

}  // namespace

Result<std::string> ReadDataFile(const std::string& path) {
  std::error_code code;
  auto kind = std::filesystem::status(path, code).type();
  if (kind != std::filesystem::file_type::regular && kind != std::filesystem::file_type::not_found && !code) {
    return Error{ErrorCode::kInvalid, path + (kind == std::filesystem::file_type::directory ? " is a directory; name the file in it" : " is not a regular file (a pipe or a device); data is read from files")};
  }
  return ReadFile(path);
}

namespace {

// A single wrong label would make a network of thousands of classes.
Status CheckClasses(const Split& train, int64_t classes) {
  auto labels = train.labels.values<int64_t>();
  std::vector<bool> seen(static_cast<size_t>(classes), false);
  for (int64_t label : labels) seen[static_cast<size_t>(label)] = true;
  auto missing = std::find(seen.begin(), seen.end(), false);
  if (missing == seen.end()) return Ok();
  auto largest = std::max_element(labels.begin(), labels.end());
  return Bad("data: training sample " + std::to_string(largest - labels.begin()) + " has label " + std::to_string(*largest) + ", but none has label " +
             std::to_string(missing - seen.begin()) + "; labels are numbers from 0 on, and every class needs a sample: correct the label, or number the classes anew");
}

}  // namespace

Result<Dataset> Load(const DataRequest& request) {
  ASSIGN_OR_RETURN(DataRequest r, ExpandBuiltIn(request));
  std::string format = FormatOf(r);
  auto pending = std::async(std::launch::async, [&] { return LoadSplit(r, format, false); });
  Result<Split> train = LoadSplit(r, format, true), test = pending.get();
  for (Result<Split>* split : {&train, &test}) {
    if (split->ok()) continue;
    if (split->error().code == ErrorCode::kNotFound && !request.dataset.empty()) {
      return Error{ErrorCode::kInvalid, split->error().message + "; install the Debian package dataset-fashion-mnist, or give data.directory"};
    }
    if (split->error().code == ErrorCode::kNotFound) return Error{ErrorCode::kInvalid, "data: " + split->error().message};
    return split->error();
  }
  Dataset dataset{*std::move(train), *std::move(test), 0};
  if (SampleShape(dataset.train.samples) != SampleShape(dataset.test.samples) || dataset.train.samples.dtype() != dataset.test.samples.dtype()) {
    return Bad("data: train samples are " + model::ToString(SampleShape(dataset.train.samples)) + ", test samples " + model::ToString(SampleShape(dataset.test.samples)) + " (" + std::string(model::ToString(dataset.train.samples.dtype())) + " and " + std::string(model::ToString(dataset.test.samples.dtype())) + "); they must agree in shape and type");
  }
  int64_t train_max = 0, test_max = 0;
  for (int64_t label : dataset.train.labels.values<int64_t>()) train_max = std::max(train_max, label);
  for (int64_t label : dataset.test.labels.values<int64_t>()) test_max = std::max(test_max, label);
  if (test_max > train_max) {
    return Bad("data: the test split has label " + std::to_string(test_max) + ", the training split only 0 to " + std::to_string(train_max));
  }
  dataset.classes = train_max + 1;
  TRY(CheckClasses(dataset.train, dataset.classes));
  return dataset;
}

Digest Dataset::fingerprint() const {
  Json json = {{"classes", classes}};
  for (const auto& [name, split] : {std::pair<const char*, const Split*>{"train", &train}, {"test", &test}}) {
    json[name] = {split->samples.digest().hex(), split->labels.digest().hex()};
  }
  return DigestOf(Canonical(json));
}

DataInfo Describe(const Dataset& dataset, const DataRequest& request) {
  DataInfo info;
  info.fingerprint = dataset.fingerprint();
  info.request = request;
  info.sample_shape = SampleShape(dataset.train.samples);
  info.dtype = model::ToString(dataset.train.samples.dtype());
  info.classes = dataset.classes;
  info.train_count = dataset.train.samples.shape()[0];
  info.test_count = dataset.test.samples.shape()[0];
  auto channels = static_cast<size_t>(Channels(info.sample_shape));
  size_t plane = static_cast<size_t>(model::ElementCount(info.sample_shape)) / channels;
  std::vector<double> sum(channels), squares(channels);
  // Sums of bytes are exact in integers, and several at once; floats are added one by one.
  auto accumulate = [&](auto values, auto zero, double unit) {
    using Sum = decltype(zero);
    for (size_t at = 0, c = 0; at < values.size(); at += plane, c = (c + 1) % channels) {
      Sum s = 0, q = 0;
      for (size_t i = 0; i < plane; ++i) {
        Sum v = static_cast<Sum>(values[at + i]);
        s += v;
        q += v * v;
      }
      sum[c] += static_cast<double>(s) * unit;
      squares[c] += static_cast<double>(q) * unit * unit;
    }
  };
  if (dataset.train.samples.dtype() == DType::kU8) accumulate(dataset.train.samples.values<uint8_t>(), uint64_t{0}, 1.0 / 255.0);
  else accumulate(dataset.train.samples.values<float>(), 0.0, 1.0);
  if (info.sample_shape.size() == 1) {
    IdPlace train = LargestIdOf(dataset.train, "train"), test = LargestIdOf(dataset.test, "test");
    bool first = !IsId(train.value) || (IsId(test.value) && train.value >= test.value);
    info.largest_id = first ? std::move(train) : std::move(test);
  }
  double n = static_cast<double>(info.train_count) * static_cast<double>(plane);
  for (size_t c = 0; c < channels; ++c) {
    double mean = sum[c] / n;
    info.mean.push_back(mean);
    info.deviation.push_back(std::sqrt(std::max(squares[c] / n - mean * mean, 0.0)));
  }
  return info;
}

Status CheckIds(const DataInfo& info, int64_t vocabulary) {
  if (!info.largest_id) return Ok();
  const IdPlace& at = *info.largest_id;
  if (IsId(at.value) && at.value < static_cast<double>(vocabulary)) return Ok();
  constexpr double kExact = 1e15;
  bool whole = at.value == std::floor(at.value) && std::abs(at.value) < kExact;
  std::string value = whole ? std::to_string(static_cast<int64_t>(at.value)) : Canonical(Json(at.value));
  return Bad("data: " + at.split + " sample " + std::to_string(at.sample) + ", position " + std::to_string(at.position) + ": " + value +
             " is no token id; the vocabulary is 0 to " + std::to_string(vocabulary - 1));
}

std::string EncodeDataset(const Dataset& dataset) {
  return model::EncodeSafetensors({{"train.samples", dataset.train.samples}, {"train.labels", dataset.train.labels},
                                   {"test.samples", dataset.test.samples}, {"test.labels", dataset.test.labels}},
                                  {{"classes", std::to_string(dataset.classes)}});
}

Result<Dataset> DecodeDataset(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive) {
  ASSIGN_OR_RETURN(model::TensorMap tensors, model::DecodeSafetensors(bytes, std::move(keep_alive)));
  for (const char* name : {"train.samples", "train.labels", "test.samples", "test.labels"}) {
    if (!tensors.count(name)) return Error{ErrorCode::kCorrupt, std::string("dataset blob: tensor ") + name + " is missing"};
  }
  Dataset dataset{{tensors["train.samples"], tensors["train.labels"]}, {tensors["test.samples"], tensors["test.labels"]}, 0};
  for (const Split* split : {&dataset.train, &dataset.test}) {
    if (split->labels.dtype() != DType::kI64 || split->samples.shape().size() < 2 || split->labels.shape() != Shape{split->samples.shape()[0]}) {
      return Error{ErrorCode::kCorrupt, "dataset blob: samples and labels do not fit"};
    }
    if ((split->samples.dtype() != DType::kU8 && split->samples.dtype() != DType::kF32) || split->samples.size() == 0 ||
        SampleShape(split->samples) != SampleShape(dataset.train.samples) || split->samples.dtype() != dataset.train.samples.dtype()) {
      return Error{ErrorCode::kCorrupt, "dataset blob: samples are " + std::string(model::ToString(split->samples.dtype())) + " " +
                                            model::ToString(split->samples.shape())};
    }
    for (int64_t label : split->labels.values<int64_t>()) {
      if (label < 0 || label >= kMaxClasses) return Error{ErrorCode::kCorrupt, "dataset blob: label " + std::to_string(label)};
      dataset.classes = std::max(dataset.classes, label + 1);
    }
  }
  return dataset;
}

SplitIndices CutValidation(int64_t train_count, int64_t validation, uint64_t seed) {
  CHECK(validation >= 0 && validation <= train_count);
  std::vector<uint32_t> order = Permutation(RandomStream(seed, RandomPurpose::kSplit), static_cast<uint32_t>(train_count));
  auto cut = order.begin() + validation;
  SplitIndices split{{cut, order.end()}, {order.begin(), cut}};
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.validation.begin(), split.validation.end());
  return split;
}

}  // namespace pare::data
