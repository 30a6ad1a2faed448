#include "tests/simulation/planted.h"

namespace pare::simulation {

std::string PlantNames() { return ""; }
bool Plant(std::string_view) { return false; }

}  // namespace pare::simulation
