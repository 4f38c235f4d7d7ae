// Several processes of a run, as threads of the test.
#pragma once
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "distributed/engines.h"
#include "distributed/launch.h"
#include "distributed/world.h"

namespace refract::testing {

// AddressSanitizer forbids how Gloo is loaded; without libgloo-dev it is not built.
inline bool can_run_several() {
#if defined(__SANITIZE_ADDRESS__)
  return false;
#else
  return has_gloo();
#endif
}

// Calls work(world) in `size` threads, each as one process on the CPU. What one throws fails the
// test.
inline void in_processes(int64_t size, const std::function<void(World&)>& work) {
  Ranks ranks;
  ranks.size = size;
  ranks.address = "127.0.0.1";
  ranks.port = free_port();
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      Ranks own = ranks;
      own.rank = own.local_rank = rank;
      try {
        World world(own);
        world.connect(at::kCPU, /*timeout=*/60);
        work(world);
        world.finish();
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

}  // namespace refract::testing
