// Sizes and speeds of the checkpoint codec on one core, with their baselines: the floor H(s) + (1 − s) · 32 bits per weight,
// zstd of the dense bytes, and compressed sparse rows.
//
//   bench_codec [SIDE]            random masks over incompressible values, SIDE x SIDE floats (default 2048)
//   bench_codec --file FILE …     the masked tensors of checkpoint files; of a store: STORE/blobs/ab/abcd…
#include <time.h>
#include <zstd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/random.h"
#include "storage/checkpoint.h"
#include "storage/store.h"

namespace pare {
namespace {

using model::DType;
using model::Mask;
using model::Tensor;

constexpr double kTargetOfFloor = 1.05, kTargetEncode = 300, kTargetDecode = 600;

// Time that the core worked for this thread: what a busy machine does besides does not count.
double Seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The fastest of several runs, at least half a second of them.
double Fastest(const std::function<void()>& body) {
  double best = 1e9, total = 0;
  for (int i = 0; i < 20 && (i < 3 || total < 0.5); ++i) {
    double start = Seconds();
    body();
    double took = Seconds() - start;
    best = std::min(best, took);
    total += took;
  }
  return best;
}

void PrintMachine() {
  std::ifstream cpus("/proc/cpuinfo");
  std::string line, name = "unknown";
  while (std::getline(cpus, line)) {
    if (line.rfind("model name", 0) == 0) name = line.substr(line.find(':') + 2);
  }
  std::printf("cpu: %s; one thread, its CPU time; compiler %s; zstd %s level 3; MB = 10^6 bytes\n", name.c_str(), __VERSION__, ZSTD_versionString());
}

std::string Payload(const Tensor& tensor, const Mask* mask) {
  std::string out;
  Status status = storage::EncodeTensorPayload(tensor, mask, [&](std::string_view bytes) {
    out += bytes;
    return Ok();
  });
  CHECK(status.ok());
  return out;
}

// Bytes of the lowest size that a mask of this density and values of so many bytes can have when nothing else is known.
double FloorBytes(const Mask& mask, double element = 4) {
  auto n = static_cast<double>(mask.size()), kept = static_cast<double>(mask.kept());
  double p = n == 0 ? 0 : kept / n, entropy = p == 0 || p == 1 ? 0 : -p * std::log2(p) - (1 - p) * std::log2(1 - p);
  return (n * entropy + kept * 8 * element) / 8;
}

// Values, column indices of the smallest sufficient type, 32-bit row starts.
double CsrBytes(const Mask& mask, double element = 4) {
  int64_t rows = mask.shape().empty() ? 1 : mask.shape()[0], columns = mask.size() / std::max<int64_t>(1, rows);
  return static_cast<double>(mask.kept()) * (element + (columns <= 65536 ? 2 : 4)) + 4.0 * static_cast<double>(rows + 1);
}

std::string Compressed(std::span<const std::byte> bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

Mask RandomMask(const model::Shape& shape, double density, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest, 1);
  std::vector<uint8_t> keep(static_cast<size_t>(model::ElementCount(shape)));
  for (uint8_t& k : keep) k = random.Uniform() < density;
  return Mask(shape, keep);
}

// Every bit of a kept value is random: nothing but the mask can be gained.
Tensor Incompressible(const Mask& mask, uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTest);
  Tensor tensor(DType::kF32, mask.shape());
  auto values = tensor.mutable_values<uint32_t>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = mask.keeps(static_cast<int64_t>(i)) ? random.Bits() : 0;
  return tensor;
}

// Normal with the deviation of an initialized layer: what a dense checkpoint holds.
Tensor Normal(const model::Shape& shape) {
  RandomStream random(7, RandomPurpose::kTest);
  Tensor tensor(DType::kF32, shape);
  for (float& v : tensor.mutable_values<float>()) v = static_cast<float>(0.05 * random.Normal());
  return tensor;
}

struct Speed {
  double encode = 0, decode = 0;  // MB/s of dense bytes
};

Speed SpeedOf(const Tensor& tensor, const Mask* mask, const std::string& payload) {
  double megabytes = static_cast<double>(tensor.bytes().size()) / 1e6;
  double encode = Fastest([&] { (void)Payload(tensor, mask); });
  double decode = Fastest([&] { CHECK(storage::DecodeTensorPayload(payload, tensor.dtype(), tensor.shape()).ok()); });
  return {megabytes / encode, megabytes / decode};
}

bool Row(const char* name, const Tensor& tensor, const Mask* mask) {
  std::string payload = Payload(tensor, mask);
  Speed speed = SpeedOf(tensor, mask, payload);
  auto dense = static_cast<double>(tensor.bytes().size()), size = static_cast<double>(payload.size());
  double floor = mask == nullptr ? dense : FloorBytes(*mask), csr = mask == nullptr ? dense : CsrBytes(*mask);
  std::string zstd = Compressed(tensor.bytes());
  double zstd_encode = dense / 1e6 / Fastest([&] { (void)Compressed(tensor.bytes()); });
  std::string back(tensor.bytes().size(), '\0');
  double zstd_decode = dense / 1e6 / Fastest([&] { (void)ZSTD_decompress(back.data(), back.size(), zstd.data(), zstd.size()); });
  bool good = size <= kTargetOfFloor * floor && speed.encode >= kTargetEncode && speed.decode >= kTargetDecode;
  std::printf("%-12s %11.0f %8.4f %8.1fx %7.0f %7.0f | %8.3fx %6.0f %6.0f | %8.3fx  %s\n", name, size, size / floor, dense / size, speed.encode, speed.decode,
              static_cast<double>(zstd.size()) / size, zstd_encode, zstd_decode, csr / size, good ? "" : "missed");
  return good;
}

int RandomMasks(int64_t side) {
  model::Shape shape = {side, side};
  std::printf("%lld x %lld float32, targets: size <= %.2f of the floor, encode >= %.0f MB/s, decode >= %.0f MB/s\n", static_cast<long long>(side),
              static_cast<long long>(side), kTargetOfFloor, kTargetEncode, kTargetDecode);
  std::printf("%-12s %11s %8s %9s %7s %7s | %9s %6s %6s | %9s\n", "", "bytes", "of floor", "smaller", "enc", "dec", "zstd size", "enc", "dec", "CSR size");
  bool good = true;
  for (double sparsity : {0.5, 0.8, 0.9, 0.95, 0.98}) {
    Mask mask = RandomMask(shape, 1 - sparsity, 3);
    char name[32];
    std::snprintf(name, sizeof name, "%.0f %% masked", 100 * sparsity);
    good = Row(name, Incompressible(mask, 4), &mask) && good;
  }
  Row("dense normal", Normal(shape), nullptr);
  Row("dense random", Incompressible(Mask(shape), 4), nullptr);
  return good ? 0 : 1;
}

// A file of a store, STORE/blobs/ab/abcd…, finds its large tensors there.
Result<storage::Checkpoint> Read(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MapFile(path));
  std::filesystem::path blobs = std::filesystem::absolute(path).parent_path().parent_path();
  std::unique_ptr<storage::BlobStore> store;
  if (blobs.filename() == "blobs") store = storage::OpenBlobDirectory(storage::StorePaths(blobs.parent_path().string()));
  return storage::DecodeCheckpoint(file.bytes, store.get());
}

struct Sizes {
  double elements = 0, kept = 0, bytes = 0, floor = 0, dense = 0, zstd = 0, csr = 0;
};

void PrintSizes(const char* name, const Sizes& sizes) {
  std::printf("%-32s %10.0f %8.2f%% %11.0f %11.0f %9.4f %8.1fx | %8.3fx %8.3fx\n", name, sizes.elements, 100 * (1 - sizes.kept / sizes.elements), sizes.bytes, sizes.floor,
              sizes.bytes / sizes.floor, sizes.dense / sizes.bytes, sizes.zstd / sizes.bytes, sizes.csr / sizes.bytes);
}

int Files(int argc, char** argv) {
  std::printf("%-32s %10s %9s %11s %11s %9s %9s | %9s %9s\n", "tensor", "elements", "sparsity", "bytes", "floor", "of floor", "smaller", "zstd size", "CSR size");
  Sizes total;
  for (int i = 0; i < argc; ++i) {
    auto checkpoint = Read(argv[i]);
    if (!checkpoint.ok()) {
      std::fprintf(stderr, "%s: %s\n", argv[i], checkpoint.error().message.c_str());
      return 2;
    }
    for (const auto& [name, mask] : checkpoint->masks) {
      const Tensor& tensor = checkpoint->tensors.at(name);
      auto element = static_cast<double>(model::SizeOf(tensor.dtype()));
      Sizes sizes{static_cast<double>(mask.size()), static_cast<double>(mask.kept()), static_cast<double>(Payload(tensor, &mask).size()), FloorBytes(mask, element),
                  static_cast<double>(tensor.bytes().size()), static_cast<double>(Compressed(tensor.bytes()).size()), CsrBytes(mask, element)};
      PrintSizes(name.c_str(), sizes);
      for (double Sizes::*part : {&Sizes::elements, &Sizes::kept, &Sizes::bytes, &Sizes::floor, &Sizes::dense, &Sizes::zstd, &Sizes::csr}) total.*part += sizes.*part;
    }
  }
  if (total.elements == 0) {
    std::printf("no masked tensors in these files\n");
    return 1;
  }
  PrintSizes("all", total);
  std::printf("%s\n", total.bytes < total.floor ? "below the floor" : "NOT below the floor");
  return total.bytes < total.floor ? 0 : 1;
}

int Main(int argc, char** argv) {
  PrintMachine();
  if (argc > 2 && std::string(argv[1]) == "--file") return Files(argc - 2, argv + 2);
  int64_t side = argc > 1 ? std::atoll(argv[1]) : 2048;
  if (side < 1 || side > 65536) {
    std::fprintf(stderr, "bench_codec: SIDE is 1 to 65536\n");
    return 2;
  }
  return RandomMasks(side);
}

}  // namespace
}  // namespace pare

int main(int argc, char** argv) { return pare::Main(argc, argv); }
