// Payloads of tensors: lossless whatever they hold, small where they can be, safe whatever the bytes.
#include "storage/tensor_codec.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cmath>

#include "common/files.h"
#include "storage/blob_files.h"
#include "storage/mask_coder.h"
#include "tests/storage/tensors.h"

namespace pare::storage {
namespace {

TEST(TensorCodecTest, EveryTypeComesBackToTheBit) {
  for (DType dtype : kAllDTypes) {
    for (const Shape& shape : std::vector<Shape>{{}, {0}, {1}, {3, 0, 2}, {7}, {64}, {65}, {33, 100}, {4, 3, 5, 5}, {300'001}}) {
      EXPECT_EQ(RoundTrip(RandomBits(dtype, shape, 1)), "") << model::ToString(dtype) << model::ToString(shape);
      EXPECT_EQ(RoundTrip(Tensor(dtype, shape)), "") << "zero " << model::ToString(dtype) << model::ToString(shape);
    }
  }
}

TEST(TensorCodecTest, UnusualFloatsComeBackToTheBit) {
  const std::vector<uint32_t> bits = {0x00000000, 0x80000000,  // 0, −0
                                      0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF,  // denormals, smallest normal, largest
                                      0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001, 0x7FBFFFFF, 0xFFFFFFFF};  // infinities, NaNs with payloads
  std::vector<uint32_t> many;
  for (int i = 0; i < 1000; ++i) many.push_back(bits[static_cast<size_t>(i * i + i / 7) % bits.size()]);
  for (const auto& values : {bits, many}) {
    Tensor tensor = Tensor::Of<uint32_t>(DType::kF32, {static_cast<int64_t>(values.size())}, values);
    EXPECT_EQ(RoundTrip(tensor), "");
    Mask all(tensor.shape());
    EXPECT_EQ(RoundTrip(tensor, &all), "");
  }
}

TEST(TensorCodecTest, MasksOfEveryDensityComeBack) {
  for (const Shape& shape : std::vector<Shape>{{1}, {63}, {64}, {65}, {300, 784}, {10, 100}, {6, 1, 5, 5}, {1, 1000}, {1000, 1}}) {
    for (double density : {0.0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1.0}) {
      Mask mask = RandomMask(shape, density, 2);
      EXPECT_EQ(RoundTrip(Masked(Weights(shape, 3), mask), &mask), "") << model::ToString(shape) << density;
      EXPECT_EQ(RoundTrip(Masked(RandomBits(DType::kI8, shape, 3), mask), &mask), "") << model::ToString(shape) << density;
    }
  }
}

TEST(TensorCodecTest, AMaskOfNothingAndAMaskOfAllComeBack) {
  for (const Shape& shape : std::vector<Shape>{{}, {0}, {0, 5}, {5}, {70, 70}}) {
    Mask all(shape), none(shape, std::vector<uint8_t>(static_cast<size_t>(model::ElementCount(shape)), 0));
    EXPECT_EQ(RoundTrip(Weights(shape, 1), &all), "") << model::ToString(shape);
    EXPECT_EQ(RoundTrip(Tensor(DType::kF32, shape), &none), "") << model::ToString(shape);
  }
}

TEST(TensorCodecTest, ARemovedValueThatIsNotZeroIsKept) {
  Mask mask = RandomMask({40, 40}, 0.3, 1);
  EXPECT_EQ(RoundTrip(Weights({40, 40}, 1), &mask), "");
  Tensor tensor = Masked(Weights({40, 40}, 1), mask);
  auto values = tensor.mutable_values<uint32_t>();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!mask.keeps(static_cast<int64_t>(i))) {
      values[i] = 0x80000000;  // one −0 among all
      break;
    }
  }
  EXPECT_EQ(RoundTrip(tensor, &mask), "");
}

TEST(TensorCodecTest, AKeptValueThatIsZeroIsKept) {
  Mask mask = RandomMask({100, 100}, 0.5, 1);
  Tensor tensor = Masked(Weights({100, 100}, 1), RandomMask({100, 100}, 0.5, 2));
  EXPECT_EQ(RoundTrip(Masked(tensor, mask), &mask), "");
}

TEST(TensorCodecTest, BlocksEndAnywhere) {
  // Rows that divide a block, that do not, that are longer than one; blocks that do not start at a word.
  for (const Shape& shape : std::vector<Shape>{{kBlockElements - 1}, {kBlockElements}, {kBlockElements + 1}, {3, kBlockElements}, {2, kBlockElements + 3},
                                               {10'001, 53}, {700, 1031}, {3, 200'000}}) {
    Mask mask = MaskWith(shape, 5, [&](size_t row, size_t column) { return (row % 3 == 0 ? 0.02 : 0.4) * (column % 5 == 0 ? 0.1 : 1); });
    EXPECT_EQ(RoundTrip(Masked(RandomBits(DType::kI16, shape, 4), mask), &mask), "") << model::ToString(shape);
    EXPECT_EQ(RoundTrip(RandomBits(DType::kU8, shape, 4)), "") << model::ToString(shape);
  }
}

TEST(TensorCodecTest, CodebooksOfEverySizeComeBack) {
  for (DType dtype : kAllDTypes) {
    for (size_t entries : {1ul, 2ul, 16ul, 255ul, 256ul, 257ul}) {
      size_t element = model::SizeOf(dtype);
      std::string book = RandomBytes(entries * element, entries), bytes;
      for (size_t i = 0; i < 5000; ++i) bytes += book.substr((i < entries ? i : i * i % entries) * element, element);
      Tensor tensor = TensorOf(dtype, {50, 100}, bytes);
      EXPECT_EQ(RoundTrip(tensor), "") << model::ToString(dtype) << entries;
      Mask mask = RandomMask({50, 100}, 0.2, 1);
      EXPECT_EQ(RoundTrip(Masked(tensor, mask), &mask), "") << model::ToString(dtype) << entries;
    }
  }
}

TEST(TensorCodecTest, WhatIsTheSameEverywhereTakesNoSpace) {
  EXPECT_LT(PayloadOf(Tensor(DType::kF32, {3000, 3000})).size(), 10u);
  std::vector<double> ones(1'000'000, 1.0);
  EXPECT_LT(PayloadOf(Tensor::Of<double>(DType::kF64, {1000, 1000}, ones)).size(), 20u);
}

TEST(TensorCodecTest, AClusteredTensorTakesItsIndicesAlone) {
  RandomStream random(1, RandomPurpose::kTest);
  std::string book = RandomBytes(16 * 4, 9), bytes;
  constexpr size_t kSize = 300'000;
  for (size_t i = 0; i < kSize; ++i) bytes += book.substr(random.Below(16) * 4, 4);
  EXPECT_LT(static_cast<double>(PayloadOf(TensorOf(DType::kF32, {300, 1000}, bytes)).size()), 1.01 * kSize / 2 + 300);
}

TEST(TensorCodecTest, ZerosWithoutAMaskTakeWhatAMaskTakes) {
  Shape shape = {500, 1000};
  Mask mask = RandomMask(shape, 0.1, 1);
  Tensor tensor = Masked(Weights(shape, 1), mask);
  EXPECT_EQ(PayloadOf(tensor).size(), PayloadOf(tensor, &mask).size());
}

TEST(TensorCodecTest, TrainedWeightsTakeLessThanTheirBits) {
  // Exponents of normal weights vary little: 2.6 of 8 bits each.
  Tensor tensor = Weights({500, 1000}, 1);
  EXPECT_LT(static_cast<double>(PayloadOf(tensor).size()), 0.85 * static_cast<double>(tensor.bytes().size()));
}

double FloorBytes(int64_t size, double density, double bits) {
  double h = density <= 0 || density >= 1 ? 0 : -density * std::log2(density) - (1 - density) * std::log2(1 - density);
  return static_cast<double>(size) * (h + density * bits) / 8;
}

TEST(TensorCodecTest, ARandomMaskOverIncompressibleValuesIsNearItsFloor) {
  for (const Shape& shape : std::vector<Shape>{{1000, 1000}, {64, 64, 3, 3}, {2000, 300}}) {
    for (double sparsity : {0.5, 0.8, 0.9, 0.95, 0.98}) {
      Mask mask = RandomMask(shape, 1 - sparsity, 1);
      auto size = static_cast<double>(PayloadOf(Masked(RandomBits(DType::kF32, shape, 2), mask), &mask).size());
      double floor = FloorBytes(mask.size(), 1 - mask.sparsity(), 32), dense = 4.0 * static_cast<double>(mask.size());
      std::printf("%s at %.0f %%: %.4f x the floor, %.2f x smaller than dense\n", model::ToString(shape).c_str(), 100 * sparsity, size / floor, dense / size);
      EXPECT_LE(size, 1.02 * floor) << sparsity;
    }
  }
}

TEST(TensorCodecTest, RowsAndColumnsOfDifferentDensityAreUsed) {
  Shape shape = {300, 784};
  auto bytes = [&](auto density) {
    Mask mask = MaskWith(shape, 7, density);
    Tensor tensor = Masked(RandomBits(DType::kI8, shape, 8), mask);
    EXPECT_EQ(RoundTrip(tensor, &mask), "");
    return std::pair(static_cast<double>(PayloadOf(tensor, &mask).size()), FloorBytes(mask.size(), 1 - mask.sparsity(), 8));
  };
  // Half of the lines keep 19 %, the other half 1 %: the mask takes 0.39 bits a weight instead of 0.47.
  auto [rows, rows_floor] = bytes([](size_t r, size_t) { return r % 2 == 0 ? 0.19 : 0.01; });
  EXPECT_LT(rows, 0.95 * rows_floor);
  auto [columns, columns_floor] = bytes([](size_t, size_t c) { return c % 3 == 0 ? 0.28 : 0.01; });
  EXPECT_LT(columns, 0.95 * columns_floor);
  auto [both, both_floor] = bytes([](size_t r, size_t c) { return (r % 2 == 0 ? 0.4 : 0.05) * (c % 2 == 0 ? 1 : 0.02); });
  EXPECT_LT(both, 0.9 * both_floor);
}

TEST(TensorCodecTest, IsWrittenInPiecesOfABlock) {
  Shape shape = {3000, 1000};
  Mask mask = RandomMask(shape, 0.5, 1);
  Tensor tensor = Masked(RandomBits(DType::kF32, shape, 1), mask);
  size_t largest = 0, pieces = 0;
  Status status = EncodeTensorPayload(tensor, &mask, [&](std::string_view bytes) {
    largest = std::max(largest, bytes.size());
    ++pieces;
    return Ok();
  });
  ASSERT_TRUE(status.ok());
  EXPECT_LT(largest, static_cast<size_t>(4 * kBlockElements));
  EXPECT_EQ(pieces, 1u + 3'000'000 / 262'000 + 1);
}

// Bytes of private writable memory that this process has now.
rlim_t DataBytes() {
  std::string status = ReadFile("/proc/self/status").value();
  return std::stoull(status.substr(status.find("VmData:") + 7)) * 1024;
}

// Whether `work` succeeds in a child that may take so many bytes more.
template <typename Work>
bool FitsInto(rlim_t bytes, Work work) {
  pid_t child = ::fork();
  if (child == 0) {
    rlimit limit{DataBytes() + bytes, DataBytes() + bytes};
    bool limited = ::setrlimit(RLIMIT_DATA, &limit) == 0;
    ::_exit(limited && [&]() noexcept { return work(); }() ? 0 : 1);
  }
  int status = 1;
  return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

// A child may use a sixth of the tensor's size in memory; the tensor itself is a mapped file.
TEST(TensorCodecTest, ATensorLargerThanTheFreeMemoryIsWrittenToAStore) {
#ifdef PARE_SANITIZED
  GTEST_SKIP() << "a sanitizer's own memory does not fit under a limit";
#endif
  constexpr int64_t kBytes = 72 << 20;
  constexpr rlim_t kFree = 12 << 20;
  TemporaryDirectory directory;
  {
    std::ofstream out(directory / "tensor", std::ios::binary);
    std::string piece = RandomBytes(1 << 20, 1);
    for (int64_t i = 0; i < kBytes >> 20; ++i) out << piece.substr(static_cast<size_t>(i)) << piece.substr(0, static_cast<size_t>(i));
  }
  StorePaths paths(directory / "store");
  std::filesystem::create_directories(paths.blobs());
  std::filesystem::create_directories(paths.tmp());
  auto file = MapFile(directory / "tensor");
  ASSERT_TRUE(file.ok());
  Tensor tensor(DType::kF32, {kBytes / 4}, file->bytes, file->keep_alive);
  auto write = [&]() -> Result<Digest> {
    auto blobs = OpenBlobDirectory(paths);
    ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs->NewWriter());
    TRY(EncodeTensorPayload(tensor, nullptr, [&](std::string_view bytes) { return writer->Append(bytes); }));
    return writer->Finish();
  };
  EXPECT_TRUE(FitsInto(kFree, [&] { return write().ok(); }));
  BlobListing stored = *ListBlobs(paths);
  ASSERT_EQ(stored.blobs.size(), 1u);
  auto payload = OpenBlobDirectory(paths)->Get(stored.blobs[0].digest);
  EXPECT_TRUE(SameBits(DecodeTensorPayload(payload->text(), DType::kF32, tensor.shape())->tensor, tensor));
}

// Ones where the mask keeps: its bytes are nearly all of the payload.
Tensor OnesWhere(const Mask& mask) {
  Tensor tensor(DType::kI8, mask.shape());
  auto values = tensor.mutable_values<int8_t>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = mask.keeps(static_cast<int64_t>(i));
  return tensor;
}

// A tenth of the rows is nearly whole, the others are nearly empty.
Mask MaskOfUnequalRows(const Shape& shape) {
  Mask dense = RandomMask({shape[0]}, 0.1, 1);
  return MaskWith(shape, 2, [&](size_t row, size_t) { return dense.keeps(static_cast<int64_t>(row)) ? 0.95 : 0.02; });
}

TEST(TensorCodecTest, ManyRowsOfDifferentDensityAreUsed) {
  // More rows than a block has elements: their classes are not kept. The second shape's blocks do not start at a word.
  for (const Shape& shape : std::vector<Shape>{{600'001, 4}, {300'000, 12}, {kBlockElements, 4}, {kBlockElements + 1, 4}}) {
    Mask mask = MaskOfUnequalRows(shape);
    Tensor tensor = OnesWhere(mask);
    EXPECT_EQ(RoundTrip(tensor, &mask), "") << model::ToString(shape);
    EXPECT_LT(static_cast<double>(PayloadOf(tensor, &mask).size()), 0.8 * FloorBytes(mask.size(), 1 - mask.sparsity(), 0)) << model::ToString(shape);
  }
}

// A few bytes for each of these rows, once, would be more than is free: nothing may be kept per row.
TEST(TensorCodecTest, ATallNarrowMaskIsWrittenInABoundedMemory) {
#ifdef PARE_SANITIZED
  GTEST_SKIP() << "a sanitizer's own memory does not fit under a limit";
#endif
  constexpr rlim_t kFree = 10 << 20;
  Mask mask = MaskOfUnequalRows({10'000'000, 4});
  Tensor tensor = OnesWhere(mask);
  EXPECT_TRUE(FitsInto(kFree, [&] { return EncodeTensorPayload(tensor, &mask, [](std::string_view) { return Ok(); }).ok(); }));
  EXPECT_EQ(RoundTrip(tensor, &mask), "");
}

TEST(TensorCodecTest, AFewDenseRowsTakeWhatCodingEachRowForItselfTakes) {
  struct Case {
    Shape shape;
    double density;
    std::vector<double> dense;  // rows 1, 8, 15, …
  };
  const std::vector<Case> cases = {{{300, 784}, 0.05, std::vector<double>(10, 0.9)}, {{300, 784}, 0.05, {1, 1, 1, 0.5, 0.5, 0.2, 0.2}}, {{300, 784}, 0.02, {1, 0.9, 0.5, 0.2, 0.1}},
                                   {{1000, 1000}, 0.01, {1, 0.9, 0.7, 0.3}},         {{1000, 1000}, 0.02, std::vector<double>(10, 1.0)},    {{120, 16, 5, 5}, 0.1, {1, 1, 0.7}}};
  for (const Case& c : cases) {
    Mask mask = MaskWith(c.shape, 3, [&](size_t row, size_t) { return row % 7 == 1 && row / 7 < c.dense.size() ? c.dense[row / 7] : c.density; });
    int64_t columns = mask.size() / c.shape[0];
    for (DType dtype : {DType::kF32, DType::kI8}) {
      double floor = 0;
      for (int64_t row = 0; row < c.shape[0]; ++row) {
        int64_t kept = 0;
        for (int64_t i = row * columns; i < (row + 1) * columns; ++i) kept += mask.keeps(i);
        floor += FloorBytes(columns, static_cast<double>(kept) / static_cast<double>(columns), 8.0 * static_cast<double>(model::SizeOf(dtype)));
      }
      auto size = static_cast<double>(PayloadOf(Masked(RandomBits(dtype, c.shape, 4), mask), &mask).size());
      std::printf("%s %s: %.4f x the floor of rows\n", model::ToString(c.shape).c_str(), std::string(model::ToString(dtype)).c_str(), size / floor);
      EXPECT_LE(size, 1.05 * floor) << model::ToString(c.shape);
    }
  }
}

TEST(TensorCodecTest, AFailureOfTheSinkEndsIt) {
  int calls = 0;
  Status status = EncodeTensorPayload(RandomBits(DType::kF32, {1000, 1000}, 1), nullptr, [&](std::string_view) -> Status {
    if (++calls == 2) return Error{ErrorCode::kNoSpace, "full"};
    return Ok();
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(calls, 2);
}

struct Sample {
  Tensor tensor;
  std::optional<Mask> mask;
};
std::vector<Sample> Samples() {
  Mask mask = MaskWith({40, 60}, 1, [](size_t r, size_t c) { return (r < 20 ? 0.02 : 0.6) * (c < 30 ? 0.05 : 1); });
  std::string clustered;
  for (int i = 0; i < 2400; ++i) clustered += std::string("\1\2\3\4\5\6\7\x08", 8).substr(static_cast<size_t>(i * i % 2) * 4, 4);
  return {{Weights({40, 60}, 1), std::nullopt},
          {Masked(Weights({40, 60}, 1), mask), mask},
          {Weights({40, 60}, 1), mask},
          {Masked(Weights({40, 60}, 1), mask), std::nullopt},
          {TensorOf(DType::kF32, {40, 60}, clustered), std::nullopt},
          {Masked(TensorOf(DType::kF32, {40, 60}, clustered), mask), mask},
          {Tensor(DType::kF32, {40, 60}), std::nullopt}};
}

TEST(TensorCodecTest, EveryTruncationIsAnError) {
  for (const Sample& sample : Samples()) {
    std::string payload = PayloadOf(sample.tensor, sample.mask ? &*sample.mask : nullptr);
    for (size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(DecodeTensorPayload(std::string_view(payload).substr(0, size), DType::kF32, {40, 60}).ok()) << size << " of " << payload.size();
    }
    EXPECT_FALSE(DecodeTensorPayload(payload + "x", DType::kF32, {40, 60}).ok());
  }
}

TEST(TensorCodecTest, APayloadOfAnotherShapeIsAnErrorOrSomethingElse) {
  for (const Sample& sample : Samples()) {
    std::string payload = PayloadOf(sample.tensor, sample.mask ? &*sample.mask : nullptr);
    for (const Shape& shape : std::vector<Shape>{{}, {0}, {39, 60}, {41, 60}, {2400}, {1, 2400}, {60, 40}, {1000, 1000}}) (void)DecodeTensorPayload(payload, DType::kF32, shape);
    for (DType dtype : kAllDTypes) (void)DecodeTensorPayload(payload, dtype, {40, 60});
  }
}

TEST(TensorCodecTest, AnyBytesAreSafe) {
  RandomStream random(3, RandomPurpose::kTest);
  for (const Sample& sample : Samples()) {
    const std::string good = PayloadOf(sample.tensor, sample.mask ? &*sample.mask : nullptr);
    for (int i = 0; i < 3000; ++i) {
      std::string payload = good;
      // Mostly near the start, where the structure is.
      for (uint64_t n = random.Below(5) + 1; n > 0; --n) payload[random.Below(random.Below(3) == 0 ? payload.size() : std::min<size_t>(payload.size(), 150))] = static_cast<char>(random.Bits());
      if (random.Below(4) == 0) payload.resize(random.Below(payload.size() + 1));
      (void)DecodeTensorPayload(payload, DType::kF32, {40, 60});
    }
  }
}

}  // namespace
}  // namespace pare::storage
