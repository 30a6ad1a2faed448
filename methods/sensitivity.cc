#include "methods/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "methods/granularity.h"
#include "methods/registry.h"
#include "methods/selection.h"

namespace pare::methods {
namespace {

Error Invalid(const std::string& text) { return {ErrorCode::kInvalid, "sensitivity: " + text}; }

template <typename T>
Result<std::vector<T>> Numbers(const Json& params, const char* field, double low, double high) {
  auto list = params.find(field);
  bool good = list != params.end() && list->is_array();
  for (const Json& v : good ? *list : Json::array()) good = good && v.is_number() && v.get<double>() >= low && v.get<double>() <= high;
  if (!good) return Invalid(std::string("field '") + field + "': expected numbers from " + Json(low).dump() + " to " + Json(high).dump());
  return list->get<std::vector<T>>();
}

// One-sided Jacobi (Hestenes 1958): rotates pairs of rows until all are orthogonal. Afterwards row i is σ_i · v_iᵀ, and `basis`
// has u_i in column i: A = basis · rows. In double; some sweeps of rows² · columns.
struct Orthogonal {
  int64_t rows, columns;
  std::vector<double> a, basis;
};

void Rotate(std::vector<double>& m, int64_t width, int64_t i, int64_t j, double c, double s) {
  double *x = m.data() + i * width, *y = m.data() + j * width;
  for (int64_t k = 0; k < width; ++k) {
    double p = x[k], q = y[k];
    x[k] = c * p - s * q;
    y[k] = s * p + c * q;
  }
}

Orthogonal Orthogonalize(std::vector<double> a, int64_t rows, int64_t columns) {
  Orthogonal o{rows, columns, std::move(a), std::vector<double>(static_cast<size_t>(rows * rows), 0.0)};
  for (int64_t i = 0; i < rows; ++i) o.basis[static_cast<size_t>(i * rows + i)] = 1.0;  // transposed: row i is uᵢ
  constexpr int kMaxSweeps = 40;
  for (int sweep = 0, rotated = 1; sweep < kMaxSweeps && rotated > 0; ++sweep) {
    rotated = 0;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = i + 1; j < rows; ++j) {
        const double *x = o.a.data() + i * columns, *y = o.a.data() + j * columns;
        double xx = std::inner_product(x, x + columns, x, 0.0), yy = std::inner_product(y, y + columns, y, 0.0);
        double xy = std::inner_product(x, x + columns, y, 0.0);
        if (std::abs(xy) <= 1e-12 * std::sqrt(xx * yy)) continue;
        double zeta = (yy - xx) / (2 * xy), t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        double c = 1 / std::sqrt(1 + t * t), s = c * t;
        Rotate(o.a, columns, i, j, c, s);
        Rotate(o.basis, rows, i, j, c, s);
        ++rotated;
      }
    }
  }
  return o;
}

}  // namespace

Result<SensitivityOptions> SensitivityOptionsFromJson(const Json& params, const model::GraphInfo& info) {
  SensitivityOptions options;
  Result<std::vector<model::TensorSpec>> specs = PresentTensors(params, info);
  if (!specs.ok()) return specs.error().With("sensitivity");
  for (const model::TensorSpec& spec : *specs) {
    if (!spec.prunable) return Invalid("field 'tensors': " + spec.name + " is not a float32 weight");
    options.tensors.push_back(spec.name);
  }
  if (options.tensors.empty()) return Invalid("field 'tensors': none of these layers is left");
  ASSIGN_OR_RETURN(options.sparsities, Numbers<double>(params, "sparsities", 0.0, 1.0));
  ASSIGN_OR_RETURN(options.energies, Numbers<double>(params, "energies", 0.0, 1.0));
  ASSIGN_OR_RETURN(options.bits, Numbers<int64_t>(params, "bits", 2, 16));
  ASSIGN_OR_RETURN(options.samples, IntField(params, "samples"));
  if (options.samples < 0) return Invalid("field 'samples': must not be negative");
  return options;
}

model::Tensor Sparsified(const model::Tensor& weight, double sparsity, const model::Mask* mask) {
  model::Mask kept = mask == nullptr ? model::Mask(weight.shape()) : *mask, after = kept;
  KeySource source({ScoreKind::kMagnitude, weight.values<float>(), {}, {}}, kept);
  int64_t target = std::llround(sparsity * static_cast<double>(weight.size())), removed = weight.size() - kept.kept();
  const Bounds all;
  RemoveCut(std::span(&source, 1), std::span(&all, 1), SelectLowest(source, std::max<int64_t>(0, target - removed)), std::span(&after, 1));
  model::Tensor out(model::DType::kF32, weight.shape());
  std::span<const float> from = weight.values<float>();
  std::span<float> to = out.mutable_values<float>();
  for (size_t i = 0; i < from.size(); ++i) to[i] = after.keeps(static_cast<int64_t>(i)) ? from[i] : 0.0f;
  return out;
}

model::Tensor Rounded(const model::Tensor& weight, int64_t bits) {
  CHECK(bits >= 2 && bits <= 16);
  model::Tensor out(model::DType::kF32, weight.shape());
  std::span<const float> from = weight.values<float>();
  std::span<float> to = out.mutable_values<float>();
  MatrixShape matrix = MatrixOf(weight.shape());
  double largest_code = std::ldexp(1.0, static_cast<int>(bits) - 1) - 1;
  for (int64_t r = 0; r < matrix.rows; ++r) {
    auto first = static_cast<size_t>(r * matrix.columns), last = first + static_cast<size_t>(matrix.columns);
    double largest = 0.0;
    for (size_t i = first; i < last; ++i) largest = std::max(largest, std::abs(static_cast<double>(from[i])));
    double scale = largest / largest_code;
    for (size_t i = first; i < last; ++i) to[i] = scale == 0.0 ? 0.0f : static_cast<float>(std::nearbyint(from[i] / scale) * scale);
  }
  return out;
}

std::vector<Truncated> TruncatedTo(const model::Tensor& weight, const std::vector<double>& energies) {
  MatrixShape m = MatrixOf(weight.shape());
  bool tall = m.rows > m.columns;  // rotate the smaller side
  int64_t rows = tall ? m.columns : m.rows, columns = tall ? m.rows : m.columns;
  std::span<const float> w = weight.values<float>();
  std::vector<double> a(w.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) a[static_cast<size_t>(r * columns + c)] = w[static_cast<size_t>(tall ? c * rows + r : r * columns + c)];
  }
  Orthogonal o = Orthogonalize(std::move(a), rows, columns);
  std::vector<std::pair<double, int64_t>> order;  // −σ², row
  double total = 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    const double* x = o.a.data() + r * columns;
    order.emplace_back(-std::inner_product(x, x + columns, x, 0.0), r);
    total -= order.back().first;
  }
  std::sort(order.begin(), order.end());
  std::vector<Truncated> results;
  for (double energy : energies) {
    std::vector<double> sum(w.size(), 0.0);
    double kept = 0.0;
    int64_t rank = 0;
    while (rank < rows && kept < energy * total) {
      int64_t row = order[static_cast<size_t>(rank++)].second;
      kept -= order[static_cast<size_t>(rank - 1)].first;
      for (int64_t r = 0; r < rows; ++r) {
        double u = o.basis[static_cast<size_t>(row * rows + r)];
        for (int64_t c = 0; c < columns; ++c) sum[static_cast<size_t>(r * columns + c)] += u * o.a[static_cast<size_t>(row * columns + c)];
      }
    }
    model::Tensor out(model::DType::kF32, weight.shape());
    std::span<float> to = out.mutable_values<float>();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) to[static_cast<size_t>(tall ? c * rows + r : r * columns + c)] = static_cast<float>(sum[static_cast<size_t>(r * columns + c)]);
    }
    results.push_back({rank, std::move(out)});
  }
  return results;
}

}  // namespace pare::methods
