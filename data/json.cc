// JSON forms of DataInfo and DataSpec.
#include "data/dataset.h"

namespace pare::data {
namespace {

template <typename T>
Status Take(const Json& json, const char* field, T& out) {
  try {
    out = json.at(field).get<T>();
    return Ok();
  } catch (const std::exception& e) {
    return Error{ErrorCode::kInvalid, std::string("data: field '") + field + "': " + e.what()};
  }
}

Json RequestJson(const DataRequest& r) {
  return {{"dataset", r.dataset}, {"directory", r.directory}, {"format", r.format}, {"train", r.train}, {"train_labels", r.train_labels},
          {"test", r.test}, {"test_labels", r.test_labels}, {"label_column", r.label_column}, {"shape", r.shape}};
}

}  // namespace

Json ToJson(const DataInfo& i) {
  Json json = {{"fingerprint", i.fingerprint.hex()}, {"blob", i.blob.is_none() ? "" : i.blob.hex()}, {"request", RequestJson(i.request)},
          {"sample_shape", i.sample_shape}, {"dtype", i.dtype}, {"classes", i.classes}, {"train_count", i.train_count},
          {"test_count", i.test_count}, {"mean", i.mean}, {"deviation", i.deviation}};
  if (i.largest_id) {
    json["largest_id"] = {{"value", i.largest_id->value}, {"split", i.largest_id->split}, {"sample", i.largest_id->sample}, {"position", i.largest_id->position}};
  }
  return json;
}

Result<DataInfo> DataInfoFromJson(const Json& json) {
  DataInfo i;
  ASSIGN_OR_RETURN(i.fingerprint, DigestField(json, "fingerprint"));
  ASSIGN_OR_RETURN(std::string blob, StringField(json, "blob"));
  if (!blob.empty()) { ASSIGN_OR_RETURN(i.blob, Digest::FromHex(blob)); }
  Json r = json.value("request", Json());
  TRY(Take(r, "dataset", i.request.dataset));
  TRY(Take(r, "directory", i.request.directory));
  TRY(Take(r, "format", i.request.format));
  TRY(Take(r, "train", i.request.train));
  TRY(Take(r, "train_labels", i.request.train_labels));
  TRY(Take(r, "test", i.request.test));
  TRY(Take(r, "test_labels", i.request.test_labels));
  TRY(Take(r, "label_column", i.request.label_column));
  TRY(Take(r, "shape", i.request.shape));
  TRY(Take(json, "sample_shape", i.sample_shape));
  TRY(Take(json, "dtype", i.dtype));
  TRY(Take(json, "classes", i.classes));
  TRY(Take(json, "train_count", i.train_count));
  TRY(Take(json, "test_count", i.test_count));
  TRY(Take(json, "mean", i.mean));
  TRY(Take(json, "deviation", i.deviation));
  if (json.contains("largest_id")) {
    IdPlace& at = i.largest_id.emplace();
    TRY(Take(json["largest_id"], "value", at.value));
    TRY(Take(json["largest_id"], "split", at.split));
    TRY(Take(json["largest_id"], "sample", at.sample));
    TRY(Take(json["largest_id"], "position", at.position));
  }
  return i;
}

Json ToJson(const DataSpec& s) {
  return {{"fingerprint", s.fingerprint.hex()}, {"validation", s.validation}, {"split_seed", s.split_seed}, {"offset", s.offset},
          {"scale", s.scale}, {"flip", s.flip}, {"shift", s.shift}};
}

Result<DataSpec> DataSpecFromJson(const Json& json) {
  DataSpec s;
  ASSIGN_OR_RETURN(s.fingerprint, DigestField(json, "fingerprint"));
  TRY(Take(json, "validation", s.validation));
  TRY(Take(json, "split_seed", s.split_seed));
  TRY(Take(json, "offset", s.offset));
  TRY(Take(json, "scale", s.scale));
  TRY(Take(json, "flip", s.flip));
  TRY(Take(json, "shift", s.shift));
  return s;
}

}  // namespace pare::data
