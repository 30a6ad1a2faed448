#include "worker/runner/logits.h"

#include <algorithm>

#include "common/json.h"
#include "model/half.h"
#include "storage/tensor_codec.h"

namespace pare::runner {
namespace {

using model::FloatOf;
using model::HalfOf;

constexpr int64_t kFormat = 1;
constexpr int64_t kMaxLogits = int64_t{1} << 40;

}  // namespace

Logits::Logits(std::span<const float> values, int64_t classes) {
  auto width = static_cast<size_t>(classes);
  CHECK(classes > 0 && values.size() % width == 0);
  tensor_ = model::Tensor(model::DType::kF16, {static_cast<int64_t>(values.size() / width), classes});
  auto out = tensor_.mutable_values<uint16_t>();
  for (size_t at = 0; at < values.size(); at += width) {
    std::span<const float> row = values.subspan(at, width);
    float largest = *std::max_element(row.begin(), row.end());
    for (size_t c = 0; c < width; ++c) out[at + c] = HalfOf(row[c] - largest);
  }
}

void Logits::Row(int64_t i, std::span<float> out) const {
  auto row = tensor_.values<uint16_t>().subspan(static_cast<size_t>(i * classes()), out.size());
  std::transform(row.begin(), row.end(), out.begin(), FloatOf);
}

std::string Logits::Encode() const {
  std::string bytes = Canonical(Json{{"classes", classes()}, {"format", kFormat}, {"samples", samples()}}) + "\n";
  Status encoded = storage::EncodeTensorPayload(tensor_, nullptr, [&](std::string_view part) {
    bytes.append(part);
    return Ok();
  });
  CHECK(encoded.ok());  // the sink cannot fail
  return bytes;
}

Result<Logits> Logits::Decode(std::string_view bytes) {
  size_t end = bytes.find('\n');
  if (end == std::string_view::npos) return Error{ErrorCode::kCorrupt, "logits: there is no header"};
  auto header = ParseJson(std::string(bytes.substr(0, end)), "header of logits");
  if (!header.ok()) return Error{ErrorCode::kCorrupt, header.error().message};
  auto format = IntField(*header, "format"), samples = IntField(*header, "samples"), classes = IntField(*header, "classes");
  if (format.ok() && *format > kFormat) return Error{ErrorCode::kVersion, "logits: format " + std::to_string(*format) + ", this release reads 1"};
  if (!format.ok() || !samples.ok() || !classes.ok() || *samples < 0 || *classes < 1 || *samples > kMaxLogits / *classes) {
    return Error{ErrorCode::kCorrupt, "logits: the header lacks format, samples or classes, or they are out of range"};
  }
  auto decoded = storage::DecodeTensorPayload(bytes.substr(end + 1), model::DType::kF16, {*samples, *classes});
  if (!decoded.ok()) return decoded.error().With("logits");
  return Logits(std::move(decoded->tensor));
}

}  // namespace pare::runner
