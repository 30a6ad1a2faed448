#include "tests/simulation/planted.h"

namespace pare::simulation {

std::string PlantNames() { return "none in this build"; }
bool Plant(const std::string&) { return false; }

}  // namespace pare::simulation
