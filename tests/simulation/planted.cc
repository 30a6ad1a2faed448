#include "tests/simulation/planted.h"

namespace pare::simulation {
namespace {

struct Entry {
  std::string_view name, what;
};
constexpr Entry kPlants[] = {
#include "planted_names.inc"
};

std::string_view planted;

}  // namespace

std::string PlantNames() {
  std::string names;
  for (const Entry& entry : kPlants) (((names += "\n") += entry.name) += ": ") += entry.what;
  return names;
}

bool Plant(std::string_view name) {
  for (const Entry& entry : kPlants) {
    if (entry.name != name) continue;
    planted = entry.name;
    return true;
  }
  return false;
}

bool Planted(std::string_view name) { return name == planted; }

}  // namespace pare::simulation
