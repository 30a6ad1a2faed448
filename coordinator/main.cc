#include "coordinator/coordinator_main.h"

int main(int argc, char** argv) { return pare::coordinator::CoordinatorMain(argc, argv); }
