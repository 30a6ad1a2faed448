// Rebuilding an index: which versions of a model are the champion and the previous one.
#include <algorithm>

#include "storage/reconcile.h"
#include "storage/registry.h"

namespace pare::storage {
namespace {

constexpr const char* kNothingToGoBackTo = ": `pare rollback` has nothing to go back to";

// One model. Number 0: none on record.
class ChampionRepair {
 public:
  ChampionRepair(SalvagedRows& rows, std::string model, const ReconcileOptions& options, std::vector<FsckLoss>& losses)
      : rows_(rows), model_(std::move(model)), options_(options), losses_(losses), champion_(AliasOf(kChampion)), previous_(AliasOf(kPrevious)) {
    for (const PromotionRow& row : rows_.promotions) {
      if (row.model != model_ || row.sequence <= sequence_) continue;
      sequence_ = row.sequence, version_before_ = row.version, previous_before_ = row.previous;
    }
    // An alias that says otherwise is newer: the history has lost its end.
    told_ = sequence_ > 0 && (champion_ == 0 || champion_ == version_before_) && (previous_ == 0 || previous_ == previous_before_);
  }

  // REQUIRES: the model has versions.
  void Run(const std::set<int64_t>& numbers) {
    int64_t champion = Champion();
    int64_t previous = Previous(champion, numbers.size() > 1);
    std::erase_if(rows_.aliases, [this](const AliasRow& row) {
      return row.model == model_ && (row.alias == kChampion || row.alias == kPrevious || !Has(row.version));
    });
    rows_.Add(AliasRow{model_, kChampion, champion});
    if (previous != 0) rows_.Add(AliasRow{model_, kPrevious, previous});
    CutHistory();
    HoldNumber(champion, *numbers.rbegin());
  }

 private:
  int64_t AliasOf(const char* alias) const {
    for (const AliasRow& row : rows_.aliases) {
      if (row.model == model_ && row.alias == alias) return row.version;
    }
    return 0;
  }

  bool Has(int64_t version) const { return rows_.HasVersion(model_, version); }

  // The newest one that was not the champion before, if there is another.
  int64_t Newest() const {
    int64_t newest = 0;
    for (const auto& [key, row] : rows_.versions) {
      if (key.first == model_ && (newest == 0 || key.second != previous_)) newest = key.second;
    }
    return newest;
  }

  int64_t Champion() {
    int64_t was = champion_ != 0 || !told_ ? champion_ : version_before_;
    if (Has(was)) return was;
    if (was == 0) {
      int64_t newest = Newest();
      losses_.push_back(VersionLoss(model_, newest, "which version was champion is lost: it is this one now, see `pare promote`"));
      return newest;
    }
    int64_t before = previous_ != 0 || !told_ ? previous_ : previous_before_;
    int64_t now = Has(before) ? before : Newest();
    losses_.push_back(VersionLoss(model_, now, "the champion, version " + std::to_string(was) + ", is lost: it is this one now, see `pare promote`"));
    return now;
  }

  int64_t Previous(int64_t champion, bool had_others) {
    bool recorded = previous_ != 0;
    if (!recorded && !options_.versions_damaged && champion == champion_) return 0;
    if (!recorded && !told_) {
      if (had_others) losses_.push_back(VersionLoss(model_, champion, "which version was champion before it is lost" + std::string(kNothingToGoBackTo)));
      return 0;
    }
    int64_t was = recorded ? previous_ : previous_before_;
    if (was == 0) return 0;
    if (Has(was) && was != champion) return was;
    if (was == champion) losses_.push_back(VersionLoss(model_, champion, "which version was champion before it is lost" + std::string(kNothingToGoBackTo)));
    else losses_.push_back(VersionLoss(model_, was, "it was the champion before, and is lost" + std::string(kNothingToGoBackTo)));
    return 0;
  }

  void CutHistory() {
    std::erase_if(rows_.promotions, [this](const PromotionRow& row) { return row.model == model_ && !Has(row.version); });
  }

  // A coordinator numbers after the versions that it knows and those that the history names.
  void HoldNumber(int64_t champion, int64_t highest) {
    if (Has(highest)) return;
    bool held = std::any_of(rows_.promotions.begin(), rows_.promotions.end(), [&](const PromotionRow& row) { return row.model == model_ && row.previous == highest; });
    if (held) return;
    rows_.Add(PromotionRow{.model = model_, .sequence = sequence_ + 1, .at_ms = options_.now_ms, .action = "repair", .version = champion, .previous = highest,
                           .text = "version " + std::to_string(highest) + " is lost"});
  }

  SalvagedRows& rows_;
  std::string model_;
  const ReconcileOptions& options_;
  std::vector<FsckLoss>& losses_;
  int64_t champion_, previous_;                                      // of the aliases
  int64_t sequence_ = 0, version_before_ = 0, previous_before_ = 0;  // of the newest promotion
  bool told_ = false;                                                // by that promotion
};

}  // namespace

void RestoreChampions(SalvagedRows& rows, const NumbersInUse& numbers, const ReconcileOptions& options, std::vector<FsckLoss>& losses) {
  std::set<std::string> models;
  for (const auto& [key, row] : rows.versions) models.insert(key.first);
  for (const std::string& model : models) ChampionRepair(rows, model, options, losses).Run(numbers.at(model));
  auto without_versions = [&models](const auto& row) { return models.count(row.model) == 0; };
  std::erase_if(rows.aliases, without_versions);
  std::erase_if(rows.promotions, without_versions);
}

}  // namespace pare::storage
