// Planted bugs (plants.cmake): rules that simulate_planted can break one at a time, to show that the simulator notices. The
// sources of the coordinator and the agent know nothing of them: copies with the bugs in are built for that program alone.
// A plant is chosen once, before threads start.
#pragma once

#include <string>
#include <string_view>

namespace pare::simulation {

// A line for each: name and what it breaks; "" in a build without.
std::string PlantNames();
// false: there is no such plant.
bool Plant(std::string_view name);
// Whether it is the one that was planted. Asked by the planted copies.
bool Planted(std::string_view name);

}  // namespace pare::simulation
