#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "common/files.h"
#include "common/json.h"

namespace pare::model {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

Error Bad(const std::string& text) { return Error{ErrorCode::kInvalid, "safetensors: " + text}; }

struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin = 0, end = 0;
};

Result<Entry> ParseEntry(const std::string& name, const Json& json, uint64_t data_bytes) {
  Entry entry{name, DType::kF32, {}, 0, 0};
  ASSIGN_OR_RETURN(std::string dtype, StringField(json, "dtype"));
  ASSIGN_OR_RETURN(entry.dtype, DTypeFromString(dtype));
  auto shape = json.find("shape"), offsets = json.find("data_offsets");
  if (shape == json.end() || !shape->is_array() || shape->size() > 16) return Bad("tensor '" + name + "': bad shape");
  uint64_t elements = 1;
  for (const Json& d : *shape) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > (uint64_t{1} << 40)) return Bad("tensor '" + name + "': bad shape");
    entry.shape.push_back(d.get<int64_t>());
    if (__builtin_mul_overflow(elements, d.get<uint64_t>(), &elements)) return Bad("tensor '" + name + "': shape too large");
  }
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return Bad("tensor '" + name + "': bad data_offsets");
  }
  entry.begin = (*offsets)[0].get<uint64_t>();
  entry.end = (*offsets)[1].get<uint64_t>();
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements, uint64_t{SizeOf(entry.dtype)}, &bytes) || entry.begin > entry.end ||
      entry.end > data_bytes || entry.end - entry.begin != bytes) {
    return Bad("tensor '" + name + "': data_offsets do not fit its shape and the file (truncated?)");
  }
  return entry;
}

// Json keeps the last of two equal names; a header with two is ambiguous. REQUIRES: `text` is valid JSON.
std::optional<std::string> DuplicateName(std::string_view text) {
  std::set<std::string> names;
  std::optional<std::string> duplicate;
  auto visit = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 1 && !names.insert(value.get<std::string>()).second) {
      duplicate = value.get<std::string>();
    }
    return true;
  };
  Json parsed = Json::parse(text, visit);
  return duplicate;
}

}  // namespace

std::string EncodeSafetensors(const TensorMap& tensors, const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    uint64_t end = offset + tensor.bytes().size();
    header[name] = {{"dtype", ToString(tensor.dtype())}, {"shape", tensor.shape()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = Canonical(header);
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  uint64_t length = text.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  out.reserve(8 + text.size() + offset);
  out += text;
  for (const auto& [name, tensor] : tensors) {
    out.append(reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size());
  }
  return out;
}

Result<TensorMap> DecodeSafetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive) {
  if (bytes.size() < 8) return Bad("the file has " + std::to_string(bytes.size()) + " bytes, at least 8 are needed");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > kMaxHeaderBytes || length > bytes.size() - 8) return Bad("header length " + std::to_string(length) + " is beyond the file");
  std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  ASSIGN_OR_RETURN(Json header, ParseJson(text, "safetensors header"));
  if (!header.is_object()) return Bad("the header is not an object");
  if (auto name = DuplicateName(text)) return Bad("tensor '" + *name + "' is named twice");
  auto data = bytes.subspan(8 + length);
  std::vector<Entry> entries;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(Entry entry, ParseEntry(name, json, data.size()));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t expected = 0;
  TensorMap tensors;
  for (Entry& entry : entries) {
    if (entry.begin != expected) return Bad("tensor '" + entry.name + "' overlaps another or leaves a hole");
    expected = entry.end;
    auto view = data.subspan(entry.begin, entry.end - entry.begin);
    size_t size = SizeOf(entry.dtype);
    if (reinterpret_cast<uintptr_t>(view.data()) % size == 0) {
      tensors.emplace(entry.name, Tensor(entry.dtype, std::move(entry.shape), view, keep_alive));
    } else {
      // Files of other writers need not be aligned; elements must be.
      Tensor copy(entry.dtype, std::move(entry.shape));
      std::memcpy(const_cast<std::byte*>(copy.bytes().data()), view.data(), view.size());
      tensors.emplace(entry.name, std::move(copy));
    }
  }
  if (expected != data.size()) return Bad(std::to_string(data.size() - expected) + " bytes after the last tensor");
  return tensors;
}

Result<TensorMap> ReadSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MapFile(path));
  auto tensors = DecodeSafetensors(file.bytes, file.keep_alive);
  if (!tensors.ok()) return tensors.error().With(path);
  return tensors;
}

Status WriteSafetensors(const std::string& path, const TensorMap& tensors, const std::map<std::string, std::string>& metadata) {
  return WriteFileDurably(path, EncodeSafetensors(tensors, metadata));
}

}  // namespace pare::model
