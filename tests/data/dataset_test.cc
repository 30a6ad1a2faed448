#include "data/dataset.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "common/random.h"
#include "tests/data/files.h"
#include "model/safetensors.h"

namespace pare::data {
namespace {

using model::DType;
using model::Shape;
using model::Tensor;
using testing::HasSubstr;

class DatasetTest : public DataTest {
 protected:
  // Four 2x3 images with labels 0 1 2 0, and one test image: the content of golden/stored.npz.
  DataRequest IdxRequest() const {
    DataRequest r;
    r.train = Write("train", Idx({4, 2, 3}, Counting(24)));
    r.train_labels = Write("train_labels", Idx({4}, std::string("\0\1\2\0", 4)));
    r.test = Write("test", Idx({1, 2, 3}, std::string(6, '\x09')));
    r.test_labels = Write("test_labels", Idx({1}, "\x01"));
    return r;
  }
  DataRequest NpyRequest(const std::string& samples, const std::string& labels) const {
    DataRequest r;
    r.train = Write("train.npy", samples);
    r.train_labels = Write("train_labels.npy", labels);
    r.test = r.train;
    r.test_labels = r.train_labels;
    return r;
  }
};

TEST_F(DatasetTest, GreyscaleImagesGetAChannel) {
  auto dataset = Load(IdxRequest());
  ASSERT_TRUE(dataset.ok()) << MessageOf(dataset);
  EXPECT_EQ(dataset->train.samples.shape(), (Shape{4, 1, 2, 3}));
  EXPECT_EQ(dataset->train.samples.dtype(), DType::kU8);
  EXPECT_EQ(dataset->classes, 3);
  EXPECT_THAT(dataset->train.labels.values<int64_t>(), testing::ElementsAre(0, 1, 2, 0));
}

TEST_F(DatasetTest, FingerprintIsTheContentWhateverTheFormat) {
  DataRequest idx = IdxRequest(), npz, packed = idx;
  npz.train = npz.test = Golden("deflated.npz");
  packed.train = Golden("images.idx.gz");
  auto a = Load(idx), b = Load(npz), c = Load(packed);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok()) << MessageOf(a) << MessageOf(b) << MessageOf(c);
  EXPECT_EQ(a->fingerprint(), b->fingerprint());
  EXPECT_EQ(a->fingerprint(), c->fingerprint());
}

TEST_F(DatasetTest, FingerprintChangesWithEveryPart) {
  DataRequest good = IdxRequest();
  Digest fingerprint = Load(good)->fingerprint();
  auto changed = [&](std::string DataRequest::*file, const std::string& bytes) {
    DataRequest r = good;
    r.*file = Write("changed", bytes);
    auto dataset = Load(r);
    EXPECT_TRUE(dataset.ok()) << MessageOf(dataset);
    return dataset->fingerprint();
  };
  std::string pixels = Counting(24);
  pixels[23] = 0;
  EXPECT_NE(changed(&DataRequest::train, Idx({4, 2, 3}, pixels)), fingerprint);
  EXPECT_NE(changed(&DataRequest::train_labels, Idx({4}, std::string("\0\1\2\1", 4))), fingerprint);
  EXPECT_NE(changed(&DataRequest::test, Idx({1, 2, 3}, std::string(6, '\x08'))), fingerprint);
  EXPECT_NE(changed(&DataRequest::test_labels, Idx({1}, "\x02")), fingerprint);
}

TEST_F(DatasetTest, CsvGivesFloats) {
  DataRequest r;
  r.train = Write("train.csv", "label,a,b,c,d\n1,1,2,3,4\n0,5,6,7,8\n");
  r.test = Write("test.csv", "label,a,b,c,d\n1,1,2,3,4\n");
  r.shape = {1, 2, 2};
  auto dataset = Load(r);
  ASSERT_TRUE(dataset.ok()) << MessageOf(dataset);
  EXPECT_EQ(dataset->train.samples.dtype(), DType::kF32);
  EXPECT_EQ(dataset->train.samples.shape(), (Shape{2, 1, 2, 2}));
  EXPECT_EQ(dataset->classes, 2);
}

TEST_F(DatasetTest, MistakesInIdxPairsAreTold) {
  auto message = [&](std::string DataRequest::*file, const std::string& bytes) {
    DataRequest r = IdxRequest();
    r.*file = Write("bad", bytes);
    auto dataset = Load(r);
    EXPECT_TRUE(dataset.ok() || dataset.error().code == ErrorCode::kInvalid);
    return MessageOf(dataset);
  };
  EXPECT_THAT(message(&DataRequest::train_labels, Idx({3}, "\0\1\2")), HasSubstr("bad"));
  EXPECT_THAT(message(&DataRequest::train_labels, Idx({3}, std::string("\0\1\2", 3))),
              HasSubstr("holds 4 samples, but " + Path("bad") + " holds 3 labels"));
  EXPECT_THAT(message(&DataRequest::train_labels, Idx({4, 1}, std::string(4, '\0'))), HasSubstr("one number per sample"));
  EXPECT_THAT(message(&DataRequest::train, Idx({4}, Counting(4))), HasSubstr("samples need at least two dimensions"));
  EXPECT_THAT(message(&DataRequest::test, Idx({1, 3, 2}, Counting(6))), HasSubstr("train samples are [1, 2, 3], test samples [1, 3, 2]"));
  EXPECT_THAT(message(&DataRequest::test_labels, Idx({1}, "\x05")), HasSubstr("test split has label 5, the training split only 0 to 2"));
  EXPECT_THAT(message(&DataRequest::train, Idx({4, 0, 3}, "")), HasSubstr("no samples"));
}

TEST_F(DatasetTest, LabelsAndSamplesOfWrongValuesAreTold) {
  std::string samples = Npy("<f4", "(2, 2)", BytesOf<float>({1, 2, 3, 4})), labels = Npy("<i8", "(2,)", BytesOf<int64_t>({0, 1}));
  EXPECT_EQ(MessageOf(Load(NpyRequest(samples, labels))), "accepted");
  EXPECT_THAT(MessageOf(Load(NpyRequest(samples, Npy("<i8", "(2,)", BytesOf<int64_t>({0, -1}))))), HasSubstr("of sample 1 is not a class number"));
  EXPECT_THAT(MessageOf(Load(NpyRequest(samples, Npy("<f4", "(2,)", BytesOf<float>({0.5f, 1}))))), HasSubstr("of sample 0 is not a class number"));
  EXPECT_THAT(MessageOf(Load(NpyRequest(samples, Npy("<f8", "(2,)", BytesOf<double>({0, NAN}))))), HasSubstr("of sample 1 is not a class number"));
  EXPECT_THAT(MessageOf(Load(NpyRequest(samples, Npy("<i8", "(2,)", BytesOf<int64_t>({0, int64_t{1} << 62}))))), HasSubstr("not a class number"));
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(MessageOf(Load(NpyRequest(Npy("<f4", "(2, 2)", BytesOf<float>({1, 2, 3, bad})), labels))),
                HasSubstr("train.npy: value 3 (sample 1) is not a finite number"));
  }
  EXPECT_THAT(MessageOf(Load(NpyRequest(Npy("|b1", "(2, 2)", "\1\1\1\1"), labels))), HasSubstr("samples of type BOOL are not read"));
}

TEST_F(DatasetTest, WhatIsMissingIsNamed) {
  DataRequest r = IdxRequest();
  r.test.clear();
  EXPECT_EQ(MessageOf(Load(r)), "data: 'test' is missing; give files for train and test, or dataset: fashion-mnist");
  r = IdxRequest();
  r.train_labels.clear();
  EXPECT_THAT(MessageOf(Load(r)), HasSubstr("needs a labels file"));
  r = IdxRequest();
  r.train = Path("none");
  EXPECT_THAT(MessageOf(Load(r)), HasSubstr(Path("none")));
  r = IdxRequest();
  r.format = "hdf5";
  EXPECT_EQ(MessageOf(Load(r)), "data: unknown format 'hdf5'; allowed are idx, npy, npz, csv");
  DataRequest built_in;
  built_in.dataset = "fashion-mnist";
  built_in.directory = Path("empty");
  EXPECT_THAT(MessageOf(Load(built_in)), HasSubstr("install the Debian package dataset-fashion-mnist"));
  built_in.dataset = "imagenet";
  EXPECT_EQ(MessageOf(Load(built_in)), "unknown dataset 'imagenet'; built in: fashion-mnist (or give files)");
  DataRequest npz;
  npz.train = npz.test = Write("empty.npz", std::string("PK\5\6", 4) + std::string(18, '\0'));
  EXPECT_THAT(MessageOf(Load(npz)), HasSubstr("no arrays x_"));
}

TEST_F(DatasetTest, FashionMnistIsWhatIsPublished) {
  DataRequest request;
  request.dataset = "fashion-mnist";
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) GTEST_SKIP() << "needs the package dataset-fashion-mnist";
  auto dataset = Load(request);
  ASSERT_TRUE(dataset.ok()) << MessageOf(dataset);
  EXPECT_EQ(dataset->train.samples.shape(), (Shape{60'000, 1, 28, 28}));
  EXPECT_EQ(dataset->test.samples.shape(), (Shape{10'000, 1, 28, 28}));
  EXPECT_EQ(dataset->classes, 10);
  std::vector<int> counts(10);
  for (int64_t label : dataset->train.labels.values<int64_t>()) ++counts[static_cast<size_t>(label)];
  EXPECT_THAT(counts, testing::Each(6000));
  DataInfo info = Describe(*dataset, request);
  EXPECT_NEAR(info.mean[0], 0.2860405969887955, 1e-9);  // torchvision's reference values
  EXPECT_NEAR(info.deviation[0], 0.3530242445149223, 1e-9);
}

TEST_F(DatasetTest, DescribeGivesMeanAndDeviationPerChannel) {
  Dataset dataset;
  dataset.train.samples = Tensor::Of<float>(DType::kF32, {2, 2, 1, 2}, std::vector<float>{1, 3, -10, 10, 5, 7, 0, 0});
  dataset.train.labels = Tensor::Of<int64_t>(DType::kI64, {2}, std::vector<int64_t>{0, 1});
  dataset.test = dataset.train;
  dataset.classes = 2;
  DataInfo info = Describe(dataset, {});
  ASSERT_EQ(info.mean.size(), 2u);
  EXPECT_DOUBLE_EQ(info.mean[0], 4.0);
  EXPECT_DOUBLE_EQ(info.mean[1], 0.0);
  EXPECT_DOUBLE_EQ(info.deviation[0], std::sqrt(5.0));
  EXPECT_DOUBLE_EQ(info.deviation[1], std::sqrt(50.0));
  EXPECT_EQ(info.sample_shape, (Shape{2, 1, 2}));
  DataInfo bytes = Describe(*Load(IdxRequest()), {});
  EXPECT_NEAR(bytes.mean[0], 11.5 / 255.0, 1e-15);
  EXPECT_NEAR(bytes.deviation[0], std::sqrt((24.0 * 24.0 - 1.0) / 12.0) / 255.0, 1e-14);
}

// Vectors of ids in each of the formats' types; `train` [2, 3], `test` [1, 3].
Dataset Ids(DType dtype, const std::vector<float>& train, const std::vector<float>& test) {
  auto tensor = [&](const std::vector<float>& values, int64_t n) {
    if (dtype == DType::kF32) return Tensor::Of<float>(dtype, {n, 3}, values);
    return Tensor::Of<uint8_t>(dtype, {n, 3}, std::vector<uint8_t>(values.begin(), values.end()));
  };
  Dataset dataset;
  dataset.train = {tensor(train, 2), Tensor::Of<int64_t>(DType::kI64, {2}, std::vector<int64_t>{0, 1})};
  dataset.test = {tensor(test, 1), Tensor::Of<int64_t>(DType::kI64, {1}, std::vector<int64_t>{1})};
  dataset.classes = 2;
  return dataset;
}

TEST_F(DatasetTest, DescribeFindsTheLargestIdOrWhatIsNone) {
  auto place = [](DType dtype, const std::vector<float>& train, const std::vector<float>& test) { return Describe(Ids(dtype, train, test), {}).largest_id.value(); };
  EXPECT_EQ(place(DType::kF32, {1, 2, 3, 9, 5, 6}, {7, 8, 0}), (IdPlace{9, "train", 1, 0}));
  EXPECT_EQ(place(DType::kU8, {1, 2, 3, 4, 5, 6}, {7, 255, 0}), (IdPlace{255, "test", 0, 1}));
  EXPECT_EQ(place(DType::kF32, {1, 2, 3, 4, 5, -1}, {7, 8, 0}), (IdPlace{-1, "train", 1, 2}));
  EXPECT_EQ(place(DType::kF32, {1, 2, 300, 4, 5, 6}, {7, 8, 0.5}), (IdPlace{0.5, "test", 0, 2}));
  EXPECT_FALSE(Describe(*Load(IdxRequest()), {}).largest_id.has_value()) << "images are no ids";
}

TEST_F(DatasetTest, IdsOutsideTheVocabularyAreNamedByTheirSample) {
  DataInfo info = Describe(Ids(DType::kF32, {1, 2, 3, 4, 5, 6}, {7, 8, 0}), {});
  EXPECT_TRUE(CheckIds(info, 9).ok());
  EXPECT_EQ(CheckIds(info, 8).error().message, "data: test sample 0, position 1: 8 is no token id; the vocabulary is 0 to 7");
  info = Describe(Ids(DType::kF32, {1, 2, 3, 4, 5.5, 6}, {7, 8, 0}), {});
  EXPECT_EQ(CheckIds(info, 9).error().message, "data: train sample 1, position 1: 5.5 is no token id; the vocabulary is 0 to 8");
}

TEST_F(DatasetTest, EncodedDatasetsReadBackWithTheirFingerprint) {
  Dataset dataset = *Load(IdxRequest());
  auto bytes = std::make_shared<std::string>(EncodeDataset(dataset));
  auto back = DecodeDataset(std::as_bytes(std::span(*bytes)), bytes);
  ASSERT_TRUE(back.ok()) << MessageOf(back);
  EXPECT_EQ(back->fingerprint(), dataset.fingerprint());
  // Viewed, not copied.
  auto inside = reinterpret_cast<const char*>(back->train.samples.bytes().data());
  EXPECT_TRUE(inside >= bytes->data() && inside < bytes->data() + bytes->size());
}

TEST_F(DatasetTest, DamagedBlobsAreRefused) {
  Dataset good = *Load(IdxRequest());
  auto code = [](const model::TensorMap& tensors) {
    auto bytes = std::make_shared<std::string>(model::EncodeSafetensors(tensors));
    auto dataset = DecodeDataset(std::as_bytes(std::span(*bytes)), bytes);
    return dataset.ok() ? "accepted" : ToString(dataset.error().code);
  };
  model::TensorMap tensors = {{"train.samples", good.train.samples}, {"train.labels", good.train.labels},
                              {"test.samples", good.test.samples}, {"test.labels", good.test.labels}};
  EXPECT_EQ(code(tensors), "accepted");
  auto with = [&](const char* name, const Tensor& tensor) {
    model::TensorMap changed = tensors;
    changed[name] = tensor;
    return code(changed);
  };
  EXPECT_EQ(with("test.samples", Tensor(DType::kF64, {1, 1, 2, 3})), "corrupt");
  EXPECT_EQ(with("test.samples", Tensor(DType::kU8, {1, 1, 3, 2})), "corrupt");
  EXPECT_EQ(with("test.labels", Tensor(DType::kI64, {2})), "corrupt");
  EXPECT_EQ(with("test.labels", Tensor(DType::kI32, {1})), "corrupt");
  EXPECT_EQ(with("test.labels", Tensor::Of<int64_t>(DType::kI64, {1}, std::vector<int64_t>{-1})), "corrupt");
  tensors.erase("test.labels");
  EXPECT_EQ(code(tensors), "corrupt");
}

TEST(CutValidationTest, CutsEverySampleOnceAndByTheSeed) {
  SplitIndices split = CutValidation(1000, 100, 7);
  EXPECT_EQ(split.validation.size(), 100u);
  EXPECT_EQ(split.train.size(), 900u);
  EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
  EXPECT_TRUE(std::is_sorted(split.validation.begin(), split.validation.end()));
  std::vector<uint32_t> all;
  std::merge(split.train.begin(), split.train.end(), split.validation.begin(), split.validation.end(), std::back_inserter(all));
  for (uint32_t i = 0; i < 1000; ++i) ASSERT_EQ(all[i], i);
  EXPECT_EQ(CutValidation(1000, 100, 7).validation, split.validation);
  EXPECT_NE(CutValidation(1000, 100, 8).validation, split.validation);
  EXPECT_TRUE(CutValidation(10, 0, 7).validation.empty());
}

TEST(DataJsonTest, InfoAndSpecReadBack) {
  DataInfo info;
  info.fingerprint = DigestOf(std::string_view("f"));
  info.blob = DigestOf(std::string_view("b"));
  info.request = {"", "dir", "csv", "t", "tl", "e", "el", "y", {1, 2}};
  info.sample_shape = {1, 2};
  info.dtype = "F32";
  info.classes = 3, info.train_count = 4, info.test_count = 5;
  info.mean = {0.1}, info.deviation = {0.3};
  auto info_back = DataInfoFromJson(*ParseJson(Canonical(ToJson(info)), "info"));
  ASSERT_TRUE(info_back.ok()) << MessageOf(info_back);
  EXPECT_EQ(*info_back, info);
  info.blob = {};
  EXPECT_EQ(*DataInfoFromJson(ToJson(info)), info);
  info.largest_id = IdPlace{30521, "test", 7, 3};
  EXPECT_EQ(*DataInfoFromJson(*ParseJson(Canonical(ToJson(info)), "info")), info);
  DataSpec spec{info.fingerprint, 5, UINT64_MAX, {0.1, 0.2}, {1.0 / 3.0, 2}, true, 2};
  auto spec_back = DataSpecFromJson(*ParseJson(Canonical(ToJson(spec)), "spec"));
  ASSERT_TRUE(spec_back.ok()) << MessageOf(spec_back);
  EXPECT_EQ(*spec_back, spec);
}

TEST(DataJsonTest, EveryFieldIsNeeded) {
  DataInfo info;
  info.fingerprint = DigestOf(std::string_view("f"));
  Json info_json = ToJson(info), spec_json = ToJson(DataSpec{info.fingerprint, 0, 0, {}, {}, false, 0});
  for (const auto& [key, value] : info_json.items()) {
    Json less = info_json;
    less.erase(key);
    EXPECT_FALSE(DataInfoFromJson(less).ok()) << key;
  }
  for (const auto& [key, value] : spec_json.items()) {
    Json less = spec_json, wrong = spec_json;
    less.erase(key);
    wrong[key] = "x";
    EXPECT_FALSE(DataSpecFromJson(less).ok()) << key;
    EXPECT_FALSE(DataSpecFromJson(wrong).ok()) << key;
  }
  EXPECT_FALSE(DataSpecFromJson(Json()).ok());
}

}  // namespace
}  // namespace pare::data
