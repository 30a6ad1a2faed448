#include "worker/agent/worker_main.h"

int main(int argc, char** argv) { return pare::worker::WorkerMain(argc, argv); }
