// Planted bugs: rules that a build with planted bugs can break one at a time, to show that the simulator notices
// (plants.cmake). A normal build has none.
#pragma once

#include <string>

namespace pare::simulation {

// "a, b, c".
std::string PlantNames();
// false: there is no such plant.
bool Plant(const std::string& name);

}  // namespace pare::simulation
