// Which of several processes this one is, as whoever started it says in the environment.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace refract {

struct Ranks {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0;     // among the processes of this machine
  std::string address;        // of the machine of process 0
  int64_t port = 0;           // there
  bool agent_store = false;   // torchrun itself listens at the port; else process 0 does
  std::string attempt = "0";  // which start of the same processes this is: torchrun restarts them
};

// The value of an environment variable, or nothing.
using Environment = std::function<std::optional<std::string>(const char*)>;
std::optional<std::string> environment_variable(const char* name);

// From RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT (torchrun, refract launch), or
// where there is neither RANK nor WORLD_SIZE, from what srun, Open MPI's mpirun, or MPICH's mpiexec
// set. One process where nothing is set. Fails (usage) for what is missing, is no number, or
// contradicts itself.
Ranks find_ranks(const Environment& variable = environment_variable);

// "node03" of Slurm's "node[03-07,11],other1".
std::string first_host(const std::string& node_list);

// Where this process sees several GPUs, leaves it the one of its local rank. Before anything asks
// for CUDA. Fails (usage) where there are several, but fewer than that.
void take_local_gpu(const Ranks& ranks);

}  // namespace refract
