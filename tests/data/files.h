// Files for the tests of data/: a directory that goes with the test, and writers that follow the formats' descriptions.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/tensor.h"

namespace pare::data {

class DataTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "/pare_data_XXXXXX";
    ASSERT_NE(mkdtemp(directory_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    return Path(name);
  }
  static std::string Golden(const std::string& name) { return std::string(PARE_SOURCE_DIR "/tests/data/golden/") + name; }

 private:
  std::string directory_;
};

inline std::string Idx(const std::vector<uint32_t>& shape, const std::string& data, char type = 8) {
  std::string out = {0, 0, type, static_cast<char>(shape.size())};
  for (uint32_t d : shape) {
    for (int shift : {24, 16, 8, 0}) out += static_cast<char>(d >> shift);
  }
  return out + data;
}

inline std::string NpyHeader(const std::string& header, int version = 1) {
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header;
}
inline std::string Npy(const std::string& descr, const std::string& shape, const std::string& data, int version = 1) {
  return NpyHeader("{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }   \n", version) + data;
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// 0, 1, 2, … as bytes.
inline std::string Counting(size_t n) {
  std::string out(n, '\0');
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<char>(i);
  return out;
}

template <typename T>
std::string MessageOf(const Result<T>& result) {
  return result.ok() ? "accepted" : result.error().message;
}

}  // namespace pare::data
