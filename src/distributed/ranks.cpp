#include "distributed/ranks.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "core/system/child_process.h"
#include "core/untrusted.h"

namespace refract {
namespace {

constexpr int64_t kUsualPort = 29500;
constexpr int64_t kMostProcesses = 65536;

// The variables of one way to start processes.
struct Starter {
  const char *name, *rank, *size, *local_rank;
};
constexpr Starter kTorchrun{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"};
constexpr std::array<Starter, 3> kOthers = {{
    // The ones of a step: a batch script has SLURM_PROCID and SLURM_NTASKS too, and is one process.
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
}};

int64_t to_number(const std::string& text, const char* name, int64_t least, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    fail_usage("{} = '{}' in the environment is no whole number from {} to {}", name, shown(text),
               least, most);
  }
  return value;
}

std::string required(const Environment& variable, const char* name, const Starter& starter) {
  const std::optional<std::string> value = variable(name);
  if (value && !value->empty()) return *value;
  fail_usage(
      "{} is not set in the environment, though {} is; start all processes with {} or refract "
      "launch, or unset {} to train in one process",
      name, variable(starter.size) ? starter.size : starter.rank, starter.name,
      variable(starter.size) ? starter.size : starter.rank);
}

Ranks ranks_of(const Environment& variable, const Starter& starter) {
  Ranks ranks;
  ranks.size =
      to_number(required(variable, starter.size, starter), starter.size, 1, kMostProcesses);
  ranks.rank =
      to_number(required(variable, starter.rank, starter), starter.rank, 0, kMostProcesses - 1);
  if (ranks.rank >= ranks.size) {
    fail_usage("the environment says {} = {}, but {} = {}: the processes are counted from 0",
               starter.rank, ranks.rank, starter.size, ranks.size);
  }
  if (ranks.size == 1) return {};
  ranks.local_rank = to_number(required(variable, starter.local_rank, starter), starter.local_rank,
                               0, ranks.size - 1);
  return ranks;
}

// Where MASTER_ADDR is not set.
std::string usual_address(const Environment& variable, const Starter& starter, int64_t size) {
  const std::string name = starter.name;
  if (name == "srun") {
    for (const char* list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"}) {
      if (const auto nodes = variable(list)) return first_host(*nodes);
    }
  }
  const char* local_size = name == "mpirun" ? "OMPI_COMM_WORLD_LOCAL_SIZE" : "MPI_LOCALNRANKS";
  if (name != "srun" && variable(local_size) == std::to_string(size)) return "127.0.0.1";
  fail_usage(
      "MASTER_ADDR is not set in the environment: {} does not say where process 0 runs; set it to "
      "that machine's name",
      name);
}

// Jobs of Slurm that share a machine must not share a port.
int64_t usual_port(const Environment& variable, const Starter& starter) {
  const auto job = variable("SLURM_JOB_ID");
  if (std::string(starter.name) != "srun" || !job) return kUsualPort;
  constexpr int64_t kFirst = 20000, kPorts = 12000;  // below what systems hand out by themselves
  const int64_t step =
      to_number(variable("SLURM_STEP_ID").value_or("0"), "SLURM_STEP_ID", 0, int64_t{1} << 40);
  return kFirst + (to_number(*job, "SLURM_JOB_ID", 0, int64_t{1} << 40) * 7 + step) % kPorts;
}

}  // namespace

std::optional<std::string> environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::optional<std::string>(value) : std::nullopt;
}

std::string first_host(const std::string& node_list) {
  const size_t bracket = node_list.find('['), comma = node_list.find(',');
  if (bracket == std::string::npos || comma < bracket) return node_list.substr(0, comma);
  const size_t end = node_list.find_first_of("-,]", bracket + 1);
  return node_list.substr(0, bracket) + node_list.substr(bracket + 1, end - bracket - 1);
}

Ranks find_ranks(const Environment& variable) {
  const Starter* starter = nullptr;
  if (variable(kTorchrun.rank) || variable(kTorchrun.size)) starter = &kTorchrun;
  for (const Starter& other : kOthers) {
    if (!starter && variable(other.size)) starter = &other;
  }
  if (!starter) return {};
  Ranks ranks = ranks_of(variable, *starter);
  if (ranks.size == 1) return ranks;
  const bool torchrun = starter == &kTorchrun;
  const auto address = variable("MASTER_ADDR"), port = variable("MASTER_PORT");
  if (torchrun) {
    ranks.address = required(variable, "MASTER_ADDR", *starter);
    ranks.port = to_number(required(variable, "MASTER_PORT", *starter), "MASTER_PORT", 1, 65535);
    ranks.agent_store = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
    ranks.attempt = variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  } else {
    ranks.address = address ? *address : usual_address(variable, *starter, ranks.size);
    ranks.port = port ? to_number(*port, "MASTER_PORT", 1, 65535) : usual_port(variable, *starter);
  }
  return ranks;
}

void take_local_gpu(const Ranks& ranks) {
  if (ranks.size == 1) return;
  const std::vector<std::string> devices = visible_devices();
  if (devices.size() < 2) return;
  if (ranks.local_rank >= static_cast<int64_t>(devices.size())) {
    fail_usage(
        "process {} is number {} of its machine, counted from 0, which shows it {} GPUs; start at "
        "most {} processes on each machine",
        ranks.rank, ranks.local_rank, devices.size(), devices.size());
  }
  ::setenv("CUDA_VISIBLE_DEVICES", devices[static_cast<size_t>(ranks.local_rank)].c_str(), 1);
}

}  // namespace refract
