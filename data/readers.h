// The file formats, one reader each. Inside data/ only. Every error names the file and the place.
#pragma once

#include <string>

#include "data/dataset.h"

namespace pare::data {

// The whole file; kInvalid for what is no file, such as a pipe or a device, which may never end.
Result<std::string> ReadDataFile(const std::string& path);

// idx or idx.gz (LeCun's MNIST format: 00 00 type rank, big-endian dimensions, elements); type 08 (u8) only.
Result<model::Tensor> ReadIdx(const std::string& path);
// .npy versions 1 and 2; C order; u1, i1, i2, i4, i8, f4, f8, b1 little-endian.
Result<model::Tensor> ReadNpy(const std::string& path);
// Members of a zip archive of .npy files (stored or deflated), without the ".npy".
Result<model::TensorMap> ReadNpz(const std::string& path);
// Numbers separated by commas, optional header; one column is the label.
Result<Split> ReadCsv(const std::string& path, const std::string& label_column, const model::Shape& shape);

// Parses the bytes of an .npy file; `what` names it.
Result<model::Tensor> ParseNpy(std::string_view bytes, const std::string& what);
// gzip or raw deflate into exactly `size` bytes.
Result<std::string> InflateGzip(std::string_view bytes, const std::string& what);
Result<std::string> InflateRaw(std::string_view bytes, size_t size, const std::string& what);

}  // namespace pare::data
