#include "data/readers.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/files.h"
#include "common/random.h"
#include "tests/data/files.h"

namespace pare::data {
namespace {

using model::DType;
using model::Shape;
using testing::HasSubstr;
using testing::StartsWith;

class ReadersTest : public DataTest {};

// ---- idx ----

TEST_F(ReadersTest, IdxGivesShapeAndBytes) {
  auto tensor = ReadIdx(Write("a", Idx({2, 2, 3}, Counting(12))));
  ASSERT_TRUE(tensor.ok()) << MessageOf(tensor);
  EXPECT_EQ(tensor->shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(tensor->dtype(), DType::kU8);
  EXPECT_EQ(tensor->values<uint8_t>()[11], 11);
}

TEST_F(ReadersTest, IdxIsReadThroughGzip) {
  auto plain = ReadIdx(Write("a", Idx({4, 2, 3}, Counting(24))));
  auto packed = ReadIdx(Golden("images.idx.gz"));
  ASSERT_TRUE(plain.ok() && packed.ok()) << MessageOf(packed);
  EXPECT_EQ(plain->digest(), packed->digest());
}

TEST_F(ReadersTest, IdxErrorsNameFileAndPlace) {
  auto message = [&](const std::string& bytes) {
    auto tensor = ReadIdx(Write("bad", bytes));
    EXPECT_TRUE(tensor.ok() || tensor.error().code == ErrorCode::kInvalid);
    EXPECT_THAT(MessageOf(tensor), StartsWith(Path("bad") + ": "));
    return MessageOf(tensor);
  };
  EXPECT_THAT(message(""), HasSubstr("truncated idx file: 0 bytes"));
  EXPECT_THAT(message("\x01" + Idx({2}, "ab")), HasSubstr("not an idx file"));
  EXPECT_THAT(message(Idx({2}, "ab", 13)), HasSubstr("element type 13 at byte 2"));
  EXPECT_THAT(message(Idx({}, "")), HasSubstr("rank 0 at byte 3"));
  EXPECT_THAT(message(Idx({2, 3}, "abcde")), HasSubstr("idx header says [2, 3] = 6 bytes, the file holds 5"));
  EXPECT_THAT(message(Idx({2, 3}, "abcdefg")), HasSubstr("the file holds 7"));
  EXPECT_THAT(message(Idx({~0u, ~0u, ~0u, ~0u}, "")), HasSubstr("too large"));
  auto missing = ReadIdx(Path("none"));
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(missing.error().message, HasSubstr(Path("none")));
}

TEST_F(ReadersTest, DamagedGzipIsRefused) {
  std::string good = *ReadFile(Golden("images.idx.gz"));
  for (size_t i = good.size() - 8; i < good.size(); ++i) {  // checksum and length
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x55);
    EXPECT_THAT(MessageOf(ReadIdx(Write("bad.gz", bad))), HasSubstr("bad.gz: damaged")) << i;
  }
}

// ---- npy ----

TEST_F(ReadersTest, NpyReadsEveryTypeAndBothVersions) {
  struct Type {
    const char* descr;
    DType dtype;
    std::string data;
  };
  const std::vector<Type> types = {
      {"|u1", DType::kU8, BytesOf<uint8_t>({1, 255})}, {"|i1", DType::kI8, BytesOf<int8_t>({-1, 2})},
      {"<i2", DType::kI16, BytesOf<int16_t>({-300, 3})}, {"<i4", DType::kI32, BytesOf<int32_t>({-70000, 3})},
      {"<i8", DType::kI64, BytesOf<int64_t>({int64_t{1} << 40, 3})}, {"<f4", DType::kF32, BytesOf<float>({1.5f, 3})},
      {"<f8", DType::kF64, BytesOf<double>({0.1, 3})}, {"|b1", DType::kBool, std::string("\x00\x01", 2)}};
  for (const Type& type : types) {
    for (int version : {1, 2}) {
      auto tensor = ReadNpy(Write("a.npy", Npy(type.descr, "(2,)", type.data, version)));
      ASSERT_TRUE(tensor.ok()) << MessageOf(tensor);
      EXPECT_EQ(tensor->dtype(), type.dtype);
      EXPECT_EQ(tensor->shape(), Shape{2});
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor->bytes().data()), tensor->bytes().size()), type.data);
    }
  }
}

TEST_F(ReadersTest, NpyErrorsNameFileAndReason) {
  auto message = [&](const std::string& bytes) {
    auto tensor = ReadNpy(Write("bad.npy", bytes));
    EXPECT_THAT(MessageOf(tensor), StartsWith(Path("bad.npy") + ": "));
    return MessageOf(tensor);
  };
  EXPECT_THAT(message("NUMPY"), HasSubstr("not an .npy file"));
  EXPECT_THAT(message(Npy("|u1", "(2,)", "ab", 3)), HasSubstr(".npy version 3 at byte 6"));
  EXPECT_THAT(message(Npy(">f4", "(2,)", "abcdefgh")), HasSubstr("element type '>f4' is not read; allowed are u1, i1"));
  EXPECT_THAT(message(Npy("<c8", "(1,)", "abcdefgh")), HasSubstr("is not read"));
  EXPECT_THAT(message(NpyHeader("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 1), }\n") + "a"),
              HasSubstr("Fortran order is not read; save with numpy.ascontiguousarray"));
  EXPECT_THAT(message(NpyHeader("{'descr': '|u1', 'fortran_order': False, }\n") + "a"), HasSubstr("no shape"));
  EXPECT_THAT(message(NpyHeader("{'fortran_order': False, 'shape': (1,), }\n") + "a"), HasSubstr("is not read"));
  EXPECT_THAT(message(Npy("|u1", "(-2,)", "ab")), HasSubstr("damaged .npy header: shape"));
  EXPECT_THAT(message(Npy("|u1", "(3, 2)", "abcde")), HasSubstr("the header says [3, 2] U8, 5 bytes follow (truncated?)"));
  EXPECT_THAT(message(Npy("<f8", "(1099511627775, 1099511627775)", "")), HasSubstr("too large"));
}

// ---- npz ----

TEST_F(ReadersTest, NpzReadsStoredAndDeflatedMembers) {
  auto stored = ReadNpz(Golden("stored.npz")), deflated = ReadNpz(Golden("deflated.npz"));
  ASSERT_TRUE(stored.ok() && deflated.ok()) << MessageOf(stored) << MessageOf(deflated);
  ASSERT_EQ(stored->size(), 4u);
  EXPECT_EQ(stored->at("x_train").shape(), (Shape{4, 2, 3}));
  EXPECT_EQ(stored->at("x_train").values<uint8_t>()[23], 23);
  EXPECT_EQ(stored->at("y_train").values<int64_t>()[2], 2);
  for (const auto& [name, tensor] : *stored) EXPECT_EQ(tensor.digest(), deflated->at(name).digest()) << name;
}

TEST_F(ReadersTest, NpzMembersAreCheckedAgainstTheirChecksum) {
  std::string bytes = *ReadFile(Golden("stored.npz"));
  size_t data = bytes.find(Counting(24));
  ASSERT_NE(data, std::string::npos);
  bytes[data + 5] = 99;
  EXPECT_EQ(MessageOf(ReadNpz(Write("bad.npz", bytes))), Path("bad.npz") + ": member x_train.npy is damaged (checksum)");
  EXPECT_THAT(MessageOf(ReadNpz(Write("bad.npz", "PK"))), HasSubstr("not an .npz file"));
}

// ---- csv ----

TEST_F(ReadersTest, CsvFindsItsLabelByNameOrNumber) {
  struct Form {
    std::string text, label;
  };
  for (const Form& form : {Form{"a,label,b\n1,2,3.5\n-4,0,5e-1\n", "label"}, Form{"1,2,3.5\n-4,0,0.5", "1"},
                           Form{"\xEF\xBB\xBF\"a\", y ,b\r\n1 , 2,\"3.5\"\r\n\r\n-4,0,.5\r\n", "y"}, Form{"0,1,x\n1,2,3.5\n-4,0,0.5\n", "1"}}) {
    auto split = ReadCsv(Write("a.csv", form.text), form.label, {});
    ASSERT_TRUE(split.ok()) << MessageOf(split);
    EXPECT_EQ(split->samples.shape(), (Shape{2, 2}));
    EXPECT_THAT(split->samples.values<float>(), testing::ElementsAre(1.0f, 3.5f, -4.0f, 0.5f));
    EXPECT_THAT(split->labels.values<int64_t>(), testing::ElementsAre(2, 0));
  }
}

TEST_F(ReadersTest, CsvRowsTakeTheGivenShape) {
  std::string path = Write("a.csv", "label,a,b,c,d\n1,1,2,3,4\n");
  EXPECT_EQ(ReadCsv(path, "label", {1, 2, 2})->samples.shape(), (Shape{1, 1, 2, 2}));
  for (const Shape& bad : {Shape{1, 2, 3}, Shape{0, 4}, Shape{-2, -2}, Shape{int64_t{1} << 62, 8}}) {
    EXPECT_THAT(MessageOf(ReadCsv(path, "label", bad)), HasSubstr("does not fit the 4 columns beside the label"));
  }
}

TEST_F(ReadersTest, CsvErrorsNameLineAndColumn) {
  auto message = [&](const std::string& text, const std::string& label = "label") {
    auto split = ReadCsv(Write("bad.csv", text), label, {});
    std::string found = MessageOf(split);
    EXPECT_THAT(found, StartsWith(Path("bad.csv") + ":"));
    return found.substr(std::min(found.size(), Path("bad.csv").size()));
  };
  EXPECT_EQ(message(""), ":1:1: no rows");
  EXPECT_EQ(message("label,a\n"), ":1:1: no rows");
  EXPECT_EQ(message("a,b\n1,2\n"), ":1:1: no label column 'label'; columns are a, b");
  EXPECT_EQ(message("1,2\n"), ":1:1: no label column 'label'; the file has no header: give the column's number, 0 to 1");
  EXPECT_EQ(message("label,a\n1,2\n0,x\n"), ":3:3: 'x' is not a finite number");
  EXPECT_EQ(message("label,a\n1,2\n0,nan\n"), ":3:3: 'nan' is not a finite number");
  EXPECT_EQ(message("label,a\n1,inf\n"), ":2:3: 'inf' is not a finite number");
  EXPECT_EQ(message("label,a\n1,1e300\n"), ":2:3: '1e300' is not a finite number");
  EXPECT_EQ(message("1,nan,3\n1,2,3\n", "0"), ":1:3: 'nan' is not a finite number");
  EXPECT_EQ(message("1,,3\n1,2,3\n", "0"), ":1:3: '' is not a finite number");
  EXPECT_EQ(message("label,a\n1,2,3\n"), ":2:1: 3 columns, the first line has 2");
  EXPECT_EQ(message("label,a\n-1,2\n"), ":2:1: label '-1' is not an integer from 0 to 1000000: number the classes from 0");
  EXPECT_EQ(message("label,a\n1.5,2\n"), ":2:1: label '1.5' is not an integer from 0 to 1000000: number the classes from 0");
  EXPECT_EQ(message("a,label\n1,0\n2, cat\n"), ":3:4: label 'cat' is not an integer from 0 to 1000000: number the classes from 0");
  EXPECT_EQ(message("a,label\n1,\n"), ":2:3: label '' is not an integer from 0 to 1000000: number the classes from 0");
  EXPECT_EQ(message("label,a,a\n1,2,3\n"), ":1:9: column 2 has the name of column 1, 'a'; each column needs a name of its own");
  EXPECT_EQ(message("label,\"a\",b, label\n1,2,3,4\n"), ":1:14: column 3 has the name of column 0, 'label'; each column needs a name of its own");
  EXPECT_EQ(message("label\n1\n"), ":1:1: needs 2 to 1000000 columns, found 1");
}

TEST_F(ReadersTest, CsvQuotesStandAroundAWholeCellOfOneLine) {
  auto split = ReadCsv(Write("a.csv", "\"la,bel\",\"b \"\"1\"\"\" \r\n 1 ,\" 2.5 \"\r\n"), "la,bel", {});
  ASSERT_TRUE(split.ok()) << MessageOf(split);
  EXPECT_THAT(split->samples.values<float>(), testing::ElementsAre(2.5f));
  auto message = [&](const std::string& text) { return MessageOf(ReadCsv(Write("bad.csv", text), "label", {})).substr(Path("bad.csv").size()); };
  EXPECT_EQ(message("label,\"a\n1,2\n"), ":1:7: this quote is not closed; a cell in double quotes ends with one on the same line");
  EXPECT_EQ(message("label,a\n1,\"2\n\",3\n"), ":2:3: this quote is not closed; a cell in double quotes ends with one on the same line");
  EXPECT_EQ(message("label,a\n\"1\"0,2\n"), ":2:4: text after the closing quote; a comma or the end of the line is allowed there");
  EXPECT_EQ(message("label,a\n1,2\"\n"), ":2:4: a quote inside a cell; quotes are allowed around a whole cell");
}

// ---- all of them ----

struct Format {
  std::string name, valid;
  std::function<Result<int>(const std::string& path)> read;
};

template <typename T>
Result<int> Done(const Result<T>& result) {
  if (!result.ok()) return result.error();
  return 0;
}

std::vector<Format> Formats() {
  auto golden = [](const char* name) { return *ReadFile(std::string(PARE_SOURCE_DIR "/tests/data/golden/") + name); };
  auto idx = [](const std::string& path) { return Done(ReadIdx(path)); };
  auto npy = [](const std::string& path) { return Done(ReadNpy(path)); };
  auto npz = [](const std::string& path) { return Done(ReadNpz(path)); };
  auto csv = [](const std::string& path) { return Done(ReadCsv(path, "label", {})); };
  return {{"idx", Idx({3, 2, 2}, Counting(12)), idx}, {"idx.gz", golden("images.idx.gz"), idx},
          {"npy", Npy("<f4", "(2, 2)", BytesOf<float>({1, 2, 3, 4})), npy}, {"stored.npz", golden("stored.npz"), npz},
          {"deflated.npz", golden("deflated.npz"), npz}, {"csv", "label,a,b\n1,2,3\n0,4,5\n", csv}};
}

TEST_F(ReadersTest, EveryTruncationOfABinaryFileIsAnErrorThatNamesIt) {
  for (const Format& format : Formats()) {
    ASSERT_TRUE(format.read(Write(format.name, format.valid)).ok()) << format.name;
    if (format.name == "csv") continue;
    for (size_t size = 0; size < format.valid.size(); ++size) {
      auto result = format.read(Write(format.name, format.valid.substr(0, size)));
      ASSERT_FALSE(result.ok()) << format.name << " of " << size << " bytes";
      EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
      EXPECT_THAT(result.error().message, StartsWith(Path(format.name)));
    }
  }
}

TEST_F(ReadersTest, AnyMutationIsReadOrRefusedWithTheFilesName) {
  RandomStream stream(1, RandomPurpose::kTest);
  for (const Format& format : Formats()) {
    for (int i = 0; i < 1500; ++i) {
      std::string bytes = format.valid;
      for (uint64_t n = 1 + stream.Below(4); n > 0; --n) {
        size_t at = stream.Below(bytes.size());
        switch (stream.Below(4)) {
          case 0: bytes[at] = static_cast<char>(stream.Below(256)); break;
          case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << stream.Below(8))); break;
          case 2: bytes.insert(at, bytes.substr(stream.Below(bytes.size()), stream.Below(20))); break;
          default: bytes.erase(at, stream.Below(8)); break;
        }
        if (bytes.empty()) bytes = "x";
      }
      auto result = format.read(Write(format.name, bytes));
      if (result.ok()) continue;
      ASSERT_EQ(result.error().code, ErrorCode::kInvalid);
      ASSERT_THAT(result.error().message, StartsWith(Path(format.name)));
    }
  }
}

}  // namespace
}  // namespace pare::data
