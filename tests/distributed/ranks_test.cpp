#include "distributed/ranks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "support/errors.h"

namespace refract {
namespace ranks_test {

using testing::expect_error;
using testing::has;
using testing::usage_error_of;
using Variables = std::map<std::string, std::string>;

Ranks ranks_of(const Variables& variables) {
  return find_ranks([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables torchrun() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"MASTER_ADDR", "node7"},
          {"MASTER_PORT", "29501"}};
}

TEST(Ranks, OneProcessWhereNothingSaysOtherwise) {
  for (const Variables& variables :
       {Variables{}, Variables{{"RANK", "0"}, {"WORLD_SIZE", "1"}},
        // A batch script of Slurm, which is no step.
        Variables{{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "5"}}}) {
    const Ranks ranks = ranks_of(variables);
    EXPECT_EQ(ranks.size, 1);
    EXPECT_EQ(ranks.rank, 0);
  }
}

TEST(Ranks, FromTorchrun) {
  Variables variables = torchrun();
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  // torchrun may itself be a step of Slurm.
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_STEP_NUM_TASKS"] = "2";
  const Ranks ranks = ranks_of(variables);
  EXPECT_EQ(ranks.rank, 3);
  EXPECT_EQ(ranks.size, 4);
  EXPECT_EQ(ranks.local_rank, 1);
  EXPECT_EQ(ranks.address, "node7");
  EXPECT_EQ(ranks.port, 29501);
  EXPECT_TRUE(ranks.agent_store);
  EXPECT_EQ(ranks.attempt, "2");
  EXPECT_FALSE(ranks_of(torchrun()).agent_store);
}

TEST(Ranks, FromSrun) {
  Variables variables = {{"SLURM_PROCID", "5"},   {"SLURM_STEP_NUM_TASKS", "8"},
                         {"SLURM_LOCALID", "1"},  {"SLURM_STEP_NODELIST", "gpu[003-004,9],x1"},
                         {"SLURM_JOB_ID", "100"}, {"SLURM_STEP_ID", "2"}};
  const Ranks ranks = ranks_of(variables);
  EXPECT_EQ(ranks.rank, 5);
  EXPECT_EQ(ranks.size, 8);
  EXPECT_EQ(ranks.local_rank, 1);
  EXPECT_EQ(ranks.address, "gpu003");
  EXPECT_EQ(ranks.port, 20702);
  variables["SLURM_JOB_ID"] = "101";  // beside it on the same machine
  EXPECT_NE(ranks_of(variables).port, ranks.port);
  variables["MASTER_ADDR"] = "gpu004";
  variables["MASTER_PORT"] = "1234";
  EXPECT_EQ(ranks_of(variables).address, "gpu004");
  EXPECT_EQ(ranks_of(variables).port, 1234);
}

TEST(Ranks, FromMpirun) {
  Variables variables = {{"OMPI_COMM_WORLD_RANK", "1"},
                         {"OMPI_COMM_WORLD_SIZE", "2"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  EXPECT_EQ(ranks_of(variables).rank, 1);
  EXPECT_EQ(ranks_of(variables).address, "127.0.0.1");
  variables["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  EXPECT_TRUE(has(usage_error_of([&] { ranks_of(variables); }), "MASTER_ADDR is not set"));
  variables["MASTER_ADDR"] = "head";
  EXPECT_EQ(ranks_of(variables).address, "head");
}

TEST(Ranks, FromMpiexec) {
  const Ranks ranks = ranks_of(
      {{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "3"}});
  EXPECT_EQ(ranks.rank, 2);
  EXPECT_EQ(ranks.size, 3);
  EXPECT_EQ(ranks.address, "127.0.0.1");
}

// Each variable missing, no number, or out of range: one line that names it.
TEST(Ranks, RefusesWhatIsMissingOrContradictory) {
  for (const auto& [name, value] : torchrun()) {
    Variables variables = torchrun();
    variables.erase(name);
    EXPECT_TRUE(has(usage_error_of([&] { ranks_of(variables); }), name)) << name;
    if (name == "MASTER_ADDR") continue;
    for (const char* wrong : {"", "two", "3x", "-1", "99999999"}) {
      variables[name] = wrong;
      const std::string text = usage_error_of([&] { ranks_of(variables); });
      EXPECT_TRUE(has(text, name)) << name << "=" << wrong;
      EXPECT_EQ(text.find('\n'), std::string::npos);
    }
  }
  Variables variables = torchrun();
  variables["RANK"] = "4";
  expect_error([&] { ranks_of(variables); }, {"RANK = 4", "WORLD_SIZE = 4"});
}

TEST(Ranks, FirstHostOfAList) {
  EXPECT_EQ(first_host("a"), "a");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("n[1-3]"), "n1");
  EXPECT_EQ(first_host("n[08,10]"), "n08");
  EXPECT_EQ(first_host("a,n[1-3]"), "a");
}

TEST(Ranks, EachProcessTakesAGpuOfItsMachine) {
  const char* before = ::getenv("CUDA_VISIBLE_DEVICES");
  const std::string kept = before ? before : "";
  const auto taken = [](const char* visible, int64_t local_rank) -> std::string {
    ::setenv("CUDA_VISIBLE_DEVICES", visible, 1);
    Ranks ranks;
    ranks.size = 4;
    ranks.local_rank = local_rank;
    take_local_gpu(ranks);
    return ::getenv("CUDA_VISIBLE_DEVICES");
  };
  EXPECT_EQ(taken("4,6", 1), "6");
  EXPECT_EQ(taken("GPU-a,GPU-b", 0), "GPU-a");
  EXPECT_EQ(taken("2", 3), "2");  // whoever started it has chosen
  EXPECT_TRUE(has(usage_error_of([&] { taken("0,1", 2); }), "shows it 2 GPUs"));
  before ? ::setenv("CUDA_VISIBLE_DEVICES", kept.c_str(), 1) : ::unsetenv("CUDA_VISIBLE_DEVICES");
}

}  // namespace ranks_test
}  // namespace refract
