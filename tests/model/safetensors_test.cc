#include "model/safetensors.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <filesystem>

#include "common/random.h"

namespace pare::model {
namespace {

// A file as the format's description lays it out, independent of the encoder.
std::string FileOf(const std::string& header, const std::string& data) {
  std::string out(8, '\0');
  uint64_t length = header.size();
  for (int i = 0; i < 8; ++i) out[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  return out + header + data;
}

Result<TensorMap> Decode(const std::string& bytes) {
  auto owner = std::make_shared<std::string>(bytes);
  return DecodeSafetensors(std::as_bytes(std::span(*owner)), owner);
}

RC_GTEST_PROP(SafetensorsTest, ReadingGivesBackWhatWasWritten, ()) {
  TensorMap tensors;
  for (int n = *rc::gen::inRange(0, 6); n > 0; --n) {
    auto dtype = static_cast<DType>(*rc::gen::inRange(0, 10));
    Shape shape;
    for (int rank = *rc::gen::inRange(0, 4); rank > 0; --rank) shape.push_back(*rc::gen::inRange<int64_t>(0, 5));
    auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(ElementCount(shape)) * SizeOf(dtype));
    for (std::byte& b : *bytes) b = static_cast<std::byte>(*rc::gen::arbitrary<uint8_t>());
    tensors.insert_or_assign("t" + std::to_string(n) + "é\"", Tensor(dtype, shape, *bytes, bytes));
  }
  std::string file = EncodeSafetensors(tensors, {{"note", "x"}});
  auto back = Decode(file);
  RC_ASSERT(back.ok());
  RC_ASSERT(back->size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    RC_ASSERT(back->count(name) == 1u);
    RC_ASSERT(back->at(name).digest() == tensor.digest());
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  RC_ASSERT((8 + length) % 64 == 0u);
}

TEST(SafetensorsTest, ReadsAFileOfAnotherWriter) {
  // Unsorted names, no padding (so unaligned floats), and metadata.
  std::string header =
      R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})";
  float values[] = {1.5f, -2.0f};
  auto tensors = Decode(FileOf(header, std::string("\x07", 1) + std::string(reinterpret_cast<const char*>(values), 8)));
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  EXPECT_EQ(tensors->at("a").values<uint8_t>()[0], 7);
  EXPECT_EQ(tensors->at("b").values<float>()[0], 1.5f);
  EXPECT_EQ(tensors->at("b").values<float>()[1], -2.0f);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensors->at("b").bytes().data()) % 4, 0u);
}

TEST(SafetensorsTest, RefusesDamagedFiles) {
  struct Bad {
    std::string header, data, message;
  };
  const std::vector<Bad> cases = {
      {R"([])", "", "the header is not an object"},
      {R"({"a":1})", "", "dtype"},
      {R"({"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}})", "x", "unknown tensor type 'F8'"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x", "bad shape"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x", "bad data_offsets"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", "x", "do not fit its shape"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "x", "truncated"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x", "do not fit"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xy", "leaves a hole"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xy", "1 bytes after the last tensor"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "xyz", "overlaps"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x",
       "'a' is named twice"},
      {R"({"a":{"dtype":"F64","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}})", "", "too large"},
      {R"({"a")", "", "not valid JSON"},
  };
  for (const Bad& bad : cases) {
    auto tensors = Decode(FileOf(bad.header, bad.data));
    ASSERT_FALSE(tensors.ok()) << bad.header;
    EXPECT_EQ(tensors.error().code, ErrorCode::kInvalid);
    EXPECT_NE(tensors.error().message.find(bad.message), std::string::npos) << tensors.error().message;
  }
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  std::string file = EncodeSafetensors({{"a", Tensor(DType::kF32, {3, 3})}, {"b", Tensor(DType::kU8, {5})}});
  ASSERT_TRUE(Decode(file).ok());
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(Decode(file.substr(0, size)).ok()) << size;
}

TEST(SafetensorsTest, AnyMutationIsReadOrRefused) {
  const std::string good = EncodeSafetensors({{"a", Tensor(DType::kF32, {3, 3})}, {"b", Tensor(DType::kU8, {5})}});
  RandomStream stream(1, RandomPurpose::kTest);
  for (int i = 0; i < 3000; ++i) {
    std::string file = good;
    for (uint64_t n = 1 + stream.Below(3); n > 0; --n) file[stream.Below(file.size())] = static_cast<char>(stream.Below(256));
    auto tensors = Decode(file);
    if (!tensors.ok()) continue;
    for (const auto& [name, tensor] : *tensors) tensor.digest();  // every byte that was promised is there
  }
}

TEST(SafetensorsTest, FilesAreNamedInErrors) {
  std::string path = testing::TempDir() + "/pare_safetensors_test.safetensors";
  TensorMap tensors = {{"a", Tensor::Of<float>(DType::kF32, {2}, std::vector<float>{1, 2})}};
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  auto back = ReadSafetensors(path);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->at("a").digest(), tensors.at("a").digest());
  std::filesystem::resize_file(path, 20);
  auto bad = ReadSafetensors(path);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message.find(path), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_EQ(ReadSafetensors(path).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace pare::model
