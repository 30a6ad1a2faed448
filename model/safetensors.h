// safetensors: the interchange format for weights (huggingface/safetensors, README, "Format"): u64 header length, JSON
// header {name: {dtype, shape, data_offsets}}, bytes. Reading is strict: overlapping, out-of-range or unsorted-with-holes
// offsets, duplicate names, headers over 100 MB are kInvalid.
#pragma once

#include <map>
#include <span>
#include <string>

#include "common/result.h"
#include "model/tensor.h"

namespace pare::model {

// The header is padded with spaces so that tensor bytes start at a multiple of 64.
std::string EncodeSafetensors(const TensorMap& tensors, const std::map<std::string, std::string>& metadata = {});
// Tensors view `bytes`, which `keep_alive` owns.
Result<TensorMap> DecodeSafetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> keep_alive);
Result<TensorMap> ReadSafetensors(const std::string& path);  // mapped, not copied
Status WriteSafetensors(const std::string& path, const TensorMap& tensors,
                        const std::map<std::string, std::string>& metadata = {});

}  // namespace pare::model
