#include "worker/runner/logits.h"

#include <algorithm>
#include <bit>

#include "common/json.h"
#include "storage/tensor_codec.h"

namespace pare::runner {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kMaxLogits = int64_t{1} << 40;

}  // namespace

uint16_t HalfOf(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);   // NaN
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above round to ∞
  if (magnitude < 0x38800000) {
    // Below 2⁻¹⁴ halves are multiples of 2⁻²⁴: adding 2⁻¹ leaves exactly these in the low bits, rounded as the FPU does.
    float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  uint32_t odd = magnitude >> 13 & 1;
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfff + odd) >> 13));
}

float FloatOf(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13));
  if (magnitude < 0x400) {
    float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

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
