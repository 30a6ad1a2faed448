#include "worker/engine/linalg.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "worker/engine/shard_pool.h"
#include "worker/engine/tensors.h"

namespace pare::engine {
namespace {

using model::DType;
using model::Tensor;

Tensor Unwrap(const at::Tensor& t, DType dtype) {
  at::Tensor host = t.to(*ScalarTypeOf(dtype)).contiguous();
  Tensor out(dtype, host.sizes().vec());
  std::memcpy(const_cast<std::byte*>(out.bytes().data()), host.data_ptr(), out.bytes().size());  // just made: nobody else has it
  return out;
}

// L of C + ridge · mean(diagonal) · I.
Result<at::Tensor> Cholesky(const at::Tensor& c, const std::string& name, double& ridge) {
  double mean = c.diagonal().mean().item<double>();
  if (!(mean > 0)) return Error{ErrorCode::kInvalid, name + ": the calibration samples give only zeros as its input; use other samples or whitened: false"};
  for (ridge = kRidge; ridge < 1; ridge *= 10) {
    at::Tensor raised = c.clone();
    raised.diagonal().add_(ridge * mean);
    auto [l, info] = at::linalg_cholesky_ex(raised);
    if (info.item<int>() == 0) return l;
  }
  return Error{ErrorCode::kInternal, name + ": its covariance has no Cholesky factor"};
}

Result<SpectrumResult> Spectrum(const SpectrumJob& job) {
  SpectrumResult result;
  at::Tensor w = Wrap(job.matrix).to(at::kDouble), a = w, l;
  if (!at::isfinite(w).all().item<bool>()) return Error{ErrorCode::kDiverged, job.name + " holds a value that is not finite: the training before it diverged"};
  if (job.covariance) {
    at::Tensor c = Wrap(*job.covariance);
    if (!at::isfinite(c).all().item<bool>()) return Error{ErrorCode::kDiverged, job.name + ": its inputs are not finite: the training before it diverged"};
    ASSIGN_OR_RETURN(l, Cholesky(c, job.name, result.ridge));
    a = at::mm(w, l);
  }
  int64_t rows = w.size(0), columns = w.size(1), n = std::min(rows, columns);
  bool left = rows <= columns;
  at::Tensor gram = left ? at::mm(a, a.t()) : at::mm(a.t(), a), values, basis;
  if (job.keep == 0) values = at::linalg_eigvalsh(gram);
  else std::tie(values, basis) = at::linalg_eigh(gram);
  values = values.flip(0).clamp_min(0.0).contiguous();
  result.energies.assign(values.data_ptr<double>(), values.data_ptr<double>() + n);
  if (job.keep == 0) return result;
  basis = basis.flip(1).narrow(1, 0, job.keep).contiguous();
  // A σ of zero would cut the pair off from training for good: a small one keeps both sides alive.
  at::Tensor sigma = values.narrow(0, 0, job.keep).clamp_min(values[0].item<double>() * 1e-14 + 1e-300).sqrt(), root = sigma.sqrt();
  at::Tensor up, down;
  if (left) {  // W ≈ U Uᵀ W, with or without L
    up = basis * root;
    down = at::mm(basis.t(), w) / root.unsqueeze(1);
  } else {  // W ≈ (W L V)(Vᵀ L⁻¹)
    up = at::mm(a, basis) / root;
    down = basis.t() * root.unsqueeze(1);
    if (l.defined()) down = at::linalg_solve_triangular(l, down, false, false);
  }
  result.up = Unwrap(up, DType::kF32);
  result.down = Unwrap(down, DType::kF32);
  return result;
}

}  // namespace

void RunParallel(int tasks, int threads, const std::function<void(int)>& body) {
  int before = at::get_num_threads();
  at::set_num_threads(1);
  {
    ShardPool pool(std::min(threads, tasks), [] { at::set_num_threads(1); });
    pool.Run(tasks, body);
  }
  at::set_num_threads(before);
}

Result<std::vector<SpectrumResult>> Spectra(std::span<const SpectrumJob> jobs, int threads) {
  // Largest first, so that threads end together.
  std::vector<size_t> order(jobs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto cost = [&](size_t j) {
    double rows = static_cast<double>(jobs[j].matrix.shape()[0]), columns = static_cast<double>(jobs[j].matrix.shape()[1]), n = std::min(rows, columns);
    return n * n * (std::max(rows, columns) + 8 * n) + (jobs[j].covariance ? columns * columns * (rows + columns) : 0);
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return cost(x) > cost(y); });
  std::vector<std::optional<Result<SpectrumResult>>> results(jobs.size());
  try {
    RunParallel(static_cast<int>(jobs.size()), threads, [&](int i) {
      c10::InferenceMode inference;
      size_t j = order[static_cast<size_t>(i)];
      results[j] = Spectrum(jobs[j]);
    });
  } catch (const c10::Error& e) {
    return Error{ErrorCode::kInternal, std::string("libtorch: ") + e.what_without_backtrace()};
  }
  std::vector<SpectrumResult> all;
  for (auto& result : results) {
    if (!result->ok()) return result->error();
    all.push_back(**std::move(result));
  }
  return all;
}

Result<std::vector<std::vector<double>>> TorchSpectra(std::span<const SpectrumJob> jobs, bool vectors, int threads) {
  c10::InferenceMode inference;
  int before = at::get_num_threads();
  at::set_num_threads(threads);
  std::vector<std::vector<double>> all;
  try {
    for (const SpectrumJob& job : jobs) {
      at::Tensor w = Wrap(job.matrix);
      at::Tensor sigma = vectors ? std::get<1>(at::linalg_svd(w, false)) : at::linalg_svdvals(w);
      at::Tensor squared = sigma.to(at::kDouble).square().contiguous();
      all.emplace_back(squared.data_ptr<double>(), squared.data_ptr<double>() + squared.numel());
    }
  } catch (const c10::Error& e) {
    at::set_num_threads(before);
    return Error{ErrorCode::kInternal, std::string("libtorch: ") + e.what_without_backtrace()};
  }
  at::set_num_threads(before);
  return all;
}

int64_t PatchForm::columns() const { return kernel_h == 0 ? input.back() : input[0] * kernel_h * kernel_w; }

int64_t PatchForm::vectors() const {
  if (kernel_h == 0) return model::ElementCount(input) / input.back();
  return ((input[1] + 2 * padding_h - kernel_h) / stride_h + 1) * ((input[2] + 2 * padding_w - kernel_w) / stride_w + 1);
}

struct CovarianceSum::State {
  PatchForm form;
  at::Tensor sum;
  int64_t vectors = 0;
};

CovarianceSum::CovarianceSum(PatchForm form) : state_(std::make_unique<State>()) {
  c10::InferenceMode inference;
  state_->form = std::move(form);
  state_->sum = at::zeros({state_->form.columns(), state_->form.columns()}, at::kDouble);
}
CovarianceSum::~CovarianceSum() = default;
CovarianceSum::CovarianceSum(CovarianceSum&&) noexcept = default;

void CovarianceSum::Add(std::span<const float> values, int64_t samples) {
  c10::InferenceMode inference;
  const PatchForm& f = state_->form;
  std::vector<int64_t> sizes = f.input;
  sizes.insert(sizes.begin(), samples);
  CHECK(static_cast<int64_t>(values.size()) == samples * model::ElementCount(f.input));
  at::Tensor x = at::from_blob(const_cast<float*>(values.data()), sizes, at::kFloat);
  if (f.kernel_h == 0) {
    x = x.reshape({-1, f.columns()});
  } else {  // [n, columns, positions] → [n · positions, columns]
    x = at::im2col(x, {f.kernel_h, f.kernel_w}, {1, 1}, {f.padding_h, f.padding_w}, {f.stride_h, f.stride_w}).transpose(1, 2).reshape({-1, f.columns()});
  }
  x = x.to(at::kDouble);
  state_->sum.addmm_(x.t(), x);
  state_->vectors += x.size(0);
}

Tensor CovarianceSum::Mean() const {
  c10::InferenceMode inference;
  CHECK(state_->vectors > 0);
  return Unwrap(state_->sum / static_cast<double>(state_->vectors), DType::kF64);
}

}  // namespace pare::engine
