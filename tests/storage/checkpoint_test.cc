// Checkpoint files: the same bytes for the same content, everything back, any damage an error, large tensors shared.
#include "storage/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "common/process.h"
#include "model/architectures.h"
#include "storage/mask_coder.h"
#include "storage/store.h"
#include "tests/storage/tensors.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

model::Graph SmallGraph() { return std::move(model::BuildArchitecture("mlp", {{"hidden", {16, 8}}}, {1, 6, 6}, 5)).value(); }

// A tensor of every type and of every way to code one.
Checkpoint Example() {
  Checkpoint checkpoint{.graph = SmallGraph(), .tensors = {}, .masks = {}, .notes = {{"from", "iterative/03-prune"}, {"epochs", 3}}};
  for (DType dtype : kAllDTypes) checkpoint.tensors.emplace("raw." + std::string(model::ToString(dtype)), RandomBits(dtype, {3, 5}, 1));
  auto masked = [&](const std::string& name, const Tensor& tensor, const Mask& mask) {
    checkpoint.tensors.emplace(name, tensor);
    checkpoint.masks.emplace(name, mask);
  };
  Shape shape = {40, 60};
  Mask mask = RandomMask(shape, 0.1, 2), structured = MaskWith(shape, 3, [](size_t r, size_t c) { return (r < 20 ? 0.02 : 0.6) * (c < 30 ? 0.05 : 1); });
  masked("masked", Masked(Weights(shape, 4), mask), mask);
  masked("structured", Masked(Weights(shape, 5), structured), structured);
  masked("not_enforced", Weights(shape, 6), mask);
  masked("none", Tensor(DType::kF32, {8}), Mask({8}, std::vector<uint8_t>(8, 0)));
  checkpoint.tensors.emplace("weights", Weights(shape, 7));
  checkpoint.tensors.emplace("zeros", Masked(Weights(shape, 8), mask));
  checkpoint.tensors.emplace("constant", Tensor(DType::kF32, {100}));
  checkpoint.tensors.emplace("empty", Tensor(DType::kF32, {0, 3}));
  checkpoint.tensors.emplace("scalar", RandomBits(DType::kI64, {}, 9));
  std::string clustered;
  for (size_t i = 0; i < 2400; ++i) clustered += RandomBytes(4, i * i % 16);
  checkpoint.tensors.emplace("clustered", TensorOf(DType::kF32, shape, clustered));
  masked("clustered_masked", Masked(checkpoint.tensors.at("clustered"), mask), mask);
  return checkpoint;
}

TEST(CheckpointTest, EverythingComesBack) {
  Checkpoint checkpoint = Example();
  auto bytes = EncodeCheckpoint(checkpoint);
  ASSERT_TRUE(bytes.ok()) << bytes.error().message;
  auto back = DecodeCheckpoint(BytesOf(*bytes));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_TRUE(Same(*back, checkpoint));
}

TEST(CheckpointTest, ACheckpointWithoutTensorsComesBack) {
  Checkpoint checkpoint{.graph = SmallGraph(), .tensors = {}, .masks = {}, .notes = Json::object()};
  EXPECT_TRUE(Same(*DecodeCheckpoint(BytesOf(*EncodeCheckpoint(checkpoint))), checkpoint));
}

TEST(CheckpointTest, EqualContentHasEqualBytesAndOtherContentOthers) {
  Checkpoint checkpoint = Example();
  std::string bytes = *EncodeCheckpoint(checkpoint);
  Checkpoint copy = *DecodeCheckpoint(BytesOf(bytes));
  EXPECT_EQ(*EncodeCheckpoint(copy), bytes);
  copy.notes["epochs"] = 4;
  EXPECT_NE(*EncodeCheckpoint(copy), bytes);
  copy = checkpoint;
  copy.masks.erase("masked");  // the same values, but nothing says that they are pruned
  EXPECT_NE(*EncodeCheckpoint(copy), bytes);
}

TEST(CheckpointTest, AMaskWithoutItsTensorOrOfAnotherShapeIsRefused) {
  Checkpoint checkpoint = Example();
  checkpoint.masks.emplace("nowhere", Mask({3}));
  EXPECT_THAT(MessageOf(EncodeCheckpoint(checkpoint)), HasSubstr("'nowhere'"));
  checkpoint = Example();
  checkpoint.masks["masked"] = Mask({60, 40});
  EXPECT_EQ(CodeOf(EncodeCheckpoint(checkpoint)), ErrorCode::kInvalid);
  EXPECT_THAT(MessageOf(EncodeCheckpoint(checkpoint)), HasSubstr("[60, 40]"));
}

TEST(CheckpointTest, OneTensorIsReadWithoutTheOthers) {
  Checkpoint checkpoint = Example();
  std::string bytes = *EncodeCheckpoint(checkpoint);
  // All payloads but one are destroyed.
  auto file = std::string_view(bytes);
  std::string payload = PayloadOf(checkpoint.tensors.at("structured"), &checkpoint.masks.at("structured"));
  size_t at = file.find(payload), header = file.find("{\"graph\"");
  ASSERT_LT(at, header);
  std::string broken = bytes;
  for (size_t i = 16; i < header; ++i) {
    if (i < at || i >= at + payload.size()) broken[i] = static_cast<char>(broken[i] ^ 0x55);
  }
  auto decoded = DecodeTensor(BytesOf(broken), "structured");
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_TRUE(SameBits(decoded->tensor, checkpoint.tensors.at("structured")));
  EXPECT_EQ(decoded->mask, checkpoint.masks.at("structured"));
  EXPECT_EQ(CodeOf(DecodeTensor(BytesOf(broken), "masked")), ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(DecodeTensor(BytesOf(bytes), "not there")), ErrorCode::kNotFound);
}

TEST(CheckpointTest, EveryTruncationIsAnError) {
  std::string bytes = *EncodeCheckpoint(Example());
  for (size_t size = 0; size < bytes.size(); ++size) ASSERT_FALSE(DecodeCheckpoint(BytesOf(std::string_view(bytes).substr(0, size))).ok()) << size;
  EXPECT_FALSE(DecodeCheckpoint(BytesOf(bytes + '\0')).ok());
}

TEST(CheckpointTest, EveryChangedByteIsAnError) {
  std::string bytes = *EncodeCheckpoint(Example());
  RandomStream random(1, RandomPurpose::kTest);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(changed[i] ^ (1u << random.Below(8)));
    auto decoded = DecodeCheckpoint(BytesOf(changed));
    ASSERT_FALSE(decoded.ok()) << i;
    ErrorCode code = decoded.error().code;
    ASSERT_TRUE(code == ErrorCode::kCorrupt || code == ErrorCode::kVersion) << i << ": " << decoded.error().message;
  }
}

TEST(CheckpointTest, ADamagedTensorIsNamed) {
  std::string bytes = *EncodeCheckpoint(Example());
  std::string payload = PayloadOf(Example().tensors.at("weights"));
  size_t at = bytes.find(payload);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 100] = static_cast<char>(bytes[at + 100] ^ 1);
  EXPECT_THAT(MessageOf(DecodeCheckpoint(BytesOf(bytes))), HasSubstr("tensor 'weights'"));
}

TEST(CheckpointTest, ANewerFormatIsToldAsSuch) {
  std::string bytes = *EncodeCheckpoint(Example());
  bytes[8] = 2;
  auto decoded = DecodeCheckpoint(BytesOf(bytes));
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.error().code, ErrorCode::kVersion);
  EXPECT_THAT(decoded.error().message, HasSubstr("format 2, this version reads 1"));
}

// The file with another header, whose digest is right: what a faulty or hostile writer could make.
std::string WithHeader(const std::string& file, const Json& header) {
  uint64_t length = 0;
  std::memcpy(&length, file.data() + file.size() - 48, 8);
  std::string out = file.substr(0, file.size() - 48 - length), text = Canonical(header);
  length = text.size();
  Digest digest = DigestOf(text);
  return out + text + std::string(reinterpret_cast<const char*>(&length), 8) + std::string(reinterpret_cast<const char*>(digest.bytes().data()), 32) + "TPKCERAP";
}
Json HeaderOf(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data() + file.size() - 48, 8);
  return Json::parse(file.substr(file.size() - 48 - length, length));
}

TEST(CheckpointTest, AHeaderThatLiesIsAnError) {
  std::string file = *EncodeCheckpoint(Example());
  Json good = HeaderOf(file);
  ASSERT_TRUE(DecodeCheckpoint(BytesOf(WithHeader(file, good))).ok());
  std::vector<Json> headers(22, good);
  size_t n = 0;
  headers[n++] = Json::array();
  headers[n++] = 7;
  headers[n++].erase("graph");
  headers[n++].erase("tensors");
  headers[n++]["graph"] = "x";
  headers[n++]["tensors"] = Json::array();
  headers[n++]["tensors"]["masked"] = 3;
  for (const char* field : {"dtype", "shape", "length", "digest"}) headers[n++]["tensors"]["masked"].erase(field);
  headers[n++]["tensors"]["masked"]["dtype"] = "F99";
  headers[n++]["tensors"]["masked"]["dtype"] = "F64";
  headers[n++]["tensors"]["masked"]["shape"] = {40, 61};
  headers[n++]["tensors"]["masked"]["shape"] = {-40, -60};
  headers[n++]["tensors"]["masked"]["shape"] = {40.5, 60};
  headers[n++]["tensors"]["masked"]["shape"] = {int64_t{1} << 40, int64_t{1} << 40};
  headers[n++]["tensors"]["masked"]["length"] = int64_t{1} << 62;
  headers[n++]["tensors"]["masked"]["length"] = -1;
  headers[n++]["tensors"]["masked"]["offset"] = -1;
  headers[n++]["tensors"]["masked"]["offset"] = 9'000'000'000'000'000'000;
  headers[n++]["tensors"]["masked"]["offset"] = 0;
  ASSERT_EQ(n, headers.size());
  for (size_t i = 0; i < n; ++i) EXPECT_FALSE(DecodeCheckpoint(BytesOf(WithHeader(file, headers[i]))).ok()) << i << ": " << headers[i].dump().substr(0, 200);
}

// ---- in a store ----

class StoredCheckpointTest : public testing::Test {
 protected:
  // One tensor above the limit, one below.
  Checkpoint Large(uint64_t seed) {
    Checkpoint checkpoint{.graph = SmallGraph(), .tensors = {}, .masks = {}, .notes = Json::object()};
    checkpoint.tensors.emplace("embedding", Weights({600, 500}, 1));
    Mask mask = RandomMask({700, 500}, 0.1, seed);
    checkpoint.tensors.emplace("fc.weight", Masked(Weights({700, 500}, seed), mask));
    checkpoint.masks.emplace("fc.weight", mask);
    checkpoint.tensors.emplace("fc.bias", Weights({700}, seed));
    return checkpoint;
  }
  std::unique_ptr<BlobStore> blobs_ = NewMemoryBlobStore();
};

TEST_F(StoredCheckpointTest, ComesBackFromItsStore) {
  Checkpoint checkpoint = Large(1);
  auto stored = PutCheckpoint(*blobs_, checkpoint);
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  auto back = GetCheckpoint(*blobs_, stored->file.digest);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_TRUE(Same(*back, checkpoint));
}

TEST_F(StoredCheckpointTest, LargeTensorsAreBlobsThatItNames) {
  auto stored = PutCheckpoint(*blobs_, Large(1));
  ASSERT_EQ(stored->shared.size(), 2u);
  int64_t bytes = stored->file.bytes;
  EXPECT_EQ(static_cast<int64_t>(blobs_->Get(stored->file.digest)->bytes.size()), stored->file.bytes);
  for (const char* name : {"embedding", "fc.weight"}) {
    const BlobReference& blob = stored->shared.at(name);
    EXPECT_EQ(static_cast<int64_t>(blobs_->Get(blob.digest)->bytes.size()), blob.bytes);
    bytes += blob.bytes;
  }
  EXPECT_EQ(stored->bytes, bytes);
}

TEST_F(StoredCheckpointTest, ATensorThatDidNotChangeIsStoredOnce) {
  auto first = PutCheckpoint(*blobs_, Large(1)), second = PutCheckpoint(*blobs_, Large(2));
  EXPECT_EQ(first->shared.at("embedding"), second->shared.at("embedding"));
  EXPECT_NE(first->shared.at("fc.weight"), second->shared.at("fc.weight"));
  EXPECT_NE(first->file, second->file);
}

TEST_F(StoredCheckpointTest, ItsBytesArePureFunctionOfItsContent) {
  auto other = NewMemoryBlobStore();
  (void)PutCheckpoint(*other, Large(2));  // what is there already changes nothing
  EXPECT_EQ(PutCheckpoint(*blobs_, Large(1))->file, PutCheckpoint(*other, Large(1))->file);
}

TEST_F(StoredCheckpointTest, AMissingTensorIsNamed) {
  auto stored = PutCheckpoint(*blobs_, Large(1));
  auto poor = NewMemoryBlobStore();
  (void)poor->Put(blobs_->Get(stored->file.digest)->bytes);
  auto back = GetCheckpoint(*poor, stored->file.digest);
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(back.error().message, HasSubstr("tensor 'embedding'"));
  EXPECT_THAT(back.error().message, HasSubstr(stored->shared.at("embedding").digest.hex()));
  BlobView file = *blobs_->Get(stored->file.digest);
  EXPECT_EQ(CodeOf(DecodeCheckpoint(file.bytes)), ErrorCode::kNotFound);
  EXPECT_TRUE(DecodeTensor(file.bytes, "fc.bias").ok());
  EXPECT_TRUE(DecodeTensor(file.bytes, "embedding", blobs_.get()).ok());
}

TEST_F(StoredCheckpointTest, SmallOnesAreOneFileThatNeedsNoStore) {
  auto stored = PutCheckpoint(*blobs_, Example());
  EXPECT_TRUE(stored->shared.empty());
  EXPECT_EQ(stored->bytes, stored->file.bytes);
  EXPECT_EQ(blobs_->Get(stored->file.digest)->text(), *EncodeCheckpoint(Example()));
}

// ---- golden files ----

std::string Golden(const std::string& name) { return PARE_SOURCE_DIR "/tests/storage/golden/" + name; }

// Values that repeat: one plane is left to zstd, whose bytes may change with its version.
Checkpoint Repeating() {
  Checkpoint checkpoint{.graph = SmallGraph(), .tensors = {}, .masks = {}, .notes = Json::object()};
  std::string once = RandomBytes(4000, 1), bytes;
  for (int i = 0; i < 10; ++i) bytes += once;
  checkpoint.tensors.emplace("repeating", TensorOf(DType::kF32, {10, 1000}, bytes));
  return checkpoint;
}

// ±0, denormals, the smallest normal and the largest number, infinities and NaNs with payloads, again and again.
Tensor UnusualFloats(DType dtype, int exponent_bits, const Shape& shape) {
  size_t size = model::SizeOf(dtype);
  uint64_t sign = uint64_t{1} << (8 * size - 1), mantissa = (sign >> exponent_bits) - 1, infinity = (sign - 1) & ~mantissa;
  const std::vector<uint64_t> values = {0,        sign,     1,        sign | mantissa, mantissa + 1, infinity - 1,
                                        infinity, sign | infinity, infinity | 1, sign | infinity | mantissa, infinity | (mantissa + 1) / 2 | 5};
  std::string bytes;
  for (size_t i = 0, n = static_cast<size_t>(model::ElementCount(shape)); i < n; ++i) {
    bytes.append(reinterpret_cast<const char*>(&values[i < values.size() ? i : (i * i + i / 7) % values.size()]), size);
  }
  return TensorOf(dtype, shape, bytes);
}

// Tensors of several blocks, each just above the size of one, and small ones of what Example() has not: masks over other types,
// codebooks of 16, floats out of the ordinary. In a store those of a mebibyte are blobs of their own, two of them one blob.
Checkpoint Blocks() {
  Checkpoint checkpoint{.graph = SmallGraph(), .tensors = {}, .masks = {}, .notes = Json::object()};
  auto add = [&](const std::string& name, const Tensor& tensor, const Mask* mask) {
    checkpoint.tensors.emplace(name, mask == nullptr ? tensor : Masked(tensor, *mask));
    if (mask != nullptr) checkpoint.masks.emplace(name, *mask);
  };
  auto sixteen = [](DType dtype, const Shape& shape) {
    size_t element = model::SizeOf(dtype);
    std::string book = RandomBytes(16 * element, 9), numbers = RandomBytes(static_cast<size_t>(model::ElementCount(shape)), 10), bytes;
    for (char number : numbers) bytes += book.substr((static_cast<uint8_t>(number) & 15) * element, element);
    return TensorOf(dtype, shape, bytes);
  };
  Shape shape = {601, 437}, small = {30, 50};
  Mask dense_rows = RandomMask({601}, 0.02, 1), few = RandomMask(shape, 0.01, 2), some = RandomMask(small, 0.3, 3);
  Mask rows = MaskWith(shape, 4, [&](size_t row, size_t column) { return (dense_rows.keeps(static_cast<int64_t>(row)) ? 0.5 : 0.002) * (column % 3 == 0 ? 1 : 0.2); });
  add("blocks.F32", RandomBits(DType::kF32, shape, 5), &few);
  checkpoint.tensors.emplace("blocks.F32.twin", checkpoint.tensors.at("blocks.F32"));
  checkpoint.masks.emplace("blocks.F32.twin", few);
  checkpoint.tensors.emplace("blocks.zeros", checkpoint.tensors.at("blocks.F32"));
  add("blocks.F16", RandomBits(DType::kF16, shape, 6), &few);
  add("blocks.codebook", sixteen(DType::kBF16, shape), &rows);
  Mask long_rows = RandomMask({2, kBlockElements + 3}, 0.01, 7), flat = RandomMask({kBlockElements + 1}, 0.01, 8);
  add("blocks.long_rows", RandomBits(DType::kI8, {2, kBlockElements + 3}, 7), &long_rows);
  add("blocks.flat", RandomBits(DType::kBF16, {kBlockElements + 1}, 8), &flat);
  Shape tall = {kBlockElements + 1, 4};
  Mask whole = RandomMask({tall[0]}, 0.01, 9), many_rows = MaskWith(tall, 10, [&](size_t row, size_t) { return whole.keeps(static_cast<int64_t>(row)) ? 0.95 : 0.001; });
  add("blocks.many_rows", RandomBits(DType::kU8, tall, 11), &many_rows);
  checkpoint.tensors.emplace("blocks.not_enforced", Tensor::Of<float>(DType::kF32, shape, std::vector<float>(601 * 437, 0.5f)));
  checkpoint.masks.emplace("blocks.not_enforced", few);
  for (DType dtype : kAllDTypes) {
    std::string name(model::ToString(dtype));
    add("masked." + name, RandomBits(dtype, small, 12), &some);
    add("sixteen." + name, sixteen(dtype, small), nullptr);
    add("sixteen_masked." + name, sixteen(dtype, small), &some);
  }
  for (auto [dtype, exponent_bits] : {std::pair(DType::kF32, 8), std::pair(DType::kF16, 5), std::pair(DType::kBF16, 8), std::pair(DType::kF64, 11)}) {
    std::string name(model::ToString(dtype));
    add("unusual." + name, UnusualFloats(dtype, exponent_bits, {11}), nullptr);
    add("unusual_masked." + name, UnusualFloats(dtype, exponent_bits, small), &some);
  }
  return checkpoint;
}

bool Accepts() {
  const char* accept = std::getenv("PARE_ACCEPT");
  return accept != nullptr && std::string(accept) == "1";
}

TEST(CheckpointGoldenTest, TheFormatIsTheReleasedOne) {
  std::string bytes = *EncodeCheckpoint(Example()), repeating = *EncodeCheckpoint(Repeating());
  if (Accepts()) {
    WriteBytes(Golden("checkpoint_v1.pare"), bytes);
    WriteBytes(Golden("checkpoint_v1_zstd.pare"), repeating);
  }
  std::string golden = ReadBytes(Golden("checkpoint_v1.pare")), with_zstd = ReadBytes(Golden("checkpoint_v1_zstd.pare"));
  EXPECT_TRUE(bytes == golden) << "the encoder writes other bytes: checkpoints of this version will not be the ones of the last; if that is meant, PARE_ACCEPT=1 rewrites the file";
  ASSERT_TRUE(DecodeCheckpoint(BytesOf(golden)).ok());
  EXPECT_TRUE(Same(*DecodeCheckpoint(BytesOf(golden)), Example()));
  ASSERT_TRUE(DecodeCheckpoint(BytesOf(with_zstd)).ok());
  EXPECT_TRUE(Same(*DecodeCheckpoint(BytesOf(with_zstd)), Repeating()));
}

TEST(CheckpointGoldenTest, TensorsOfSeveralBlocksAndBlobsOfAStoreAreTheReleasedOnes) {
  auto blobs = NewMemoryBlobStore();
  auto stored = PutCheckpoint(*blobs, Blocks());
  ASSERT_TRUE(stored.ok()) << stored.error().message;
  auto path_of = [](const Digest& digest) { return Golden("blobs/" + digest.hex().substr(0, 2) + "/" + digest.hex()); };
  if (Accepts()) {
    WriteBytes(Golden("checkpoint_v1_shared.pare"), blobs->Get(stored->file.digest)->text());
    std::filesystem::remove_all(Golden("blobs"));
    for (const auto& [name, blob] : stored->shared) {
      std::filesystem::create_directories(std::filesystem::path(path_of(blob.digest)).parent_path());
      WriteBytes(path_of(blob.digest), blobs->Get(blob.digest)->text());
    }
  }
  std::string golden = ReadBytes(Golden("checkpoint_v1_shared.pare"));
  EXPECT_EQ(stored->shared.size(), 5u);
  EXPECT_EQ(stored->shared.at("blocks.F32"), stored->shared.at("blocks.F32.twin"));
  auto released = NewMemoryBlobStore();
  EXPECT_EQ(CodeOf(DecodeCheckpoint(BytesOf(golden), released.get())), ErrorCode::kNotFound);
  for (const auto& [name, blob] : stored->shared) {
    std::string payload = ReadBytes(path_of(blob.digest));
    EXPECT_TRUE(payload == blobs->Get(blob.digest)->text()) << "the encoder writes other bytes for " << name << "; if that is meant, PARE_ACCEPT=1 rewrites the files";
    ASSERT_TRUE(released->Put(BytesOf(payload)).ok());
  }
  // Not the whole file's bytes: some small planes in it are left to zstd.
  auto decoded = DecodeCheckpoint(BytesOf(golden), released.get());
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_TRUE(Same(*decoded, Blocks()));
}

// The reader in Python was written from docs/formats.md. It prints per tensor: name, dtype, shape, SHA-256 of the bytes, and
// SHA-256 of the mask as one byte per element, or "-".
TEST(CheckpointGoldenTest, AReaderWrittenFromTheDocumentReadsIt) {
  if (::access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "there is no /usr/bin/python3";
  for (const auto& [file, checkpoint] : {std::pair("checkpoint_v1.pare", Example()), std::pair("checkpoint_v1_zstd.pare", Repeating()), std::pair("checkpoint_v1_shared.pare", Blocks())}) {
    std::string expected;
    for (const auto& [name, tensor] : checkpoint.tensors) {
      std::string mask = "-";
      if (auto found = checkpoint.masks.find(name); found != checkpoint.masks.end()) {
        std::string keep;
        for (int64_t i = 0; i < found->second.size(); ++i) keep += found->second.keeps(i) ? '\1' : '\0';
        mask = DigestOf(keep).hex();
      }
      expected += name + " " + std::string(model::ToString(tensor.dtype())) + " " + model::ToString(tensor.shape()) + " " + DigestOf(tensor.bytes()).hex() + " " + mask + "\n";
    }
    TemporaryDirectory directory;
    auto reader = Process::Spawn({.arguments = {"/usr/bin/python3", PARE_SOURCE_DIR "/bench/codec/read_checkpoint.py", Golden(file), Golden("blobs")}, .output_path = directory / "out"});
    ASSERT_TRUE(reader.ok()) << reader.error().message;
    ASSERT_TRUE((*reader)->Wait(Millis(300'000)).has_value());
    EXPECT_EQ(ReadBytes(directory / "out"), expected);
    EXPECT_EQ((*reader)->code(), 0);
  }
}

}  // namespace
}  // namespace pare::storage
