// The processes of one run, seen from one of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "distributed/ranks.h"
#include "ops/collectives/collectives.h"

namespace refract {

class Rendezvous;
class Watch;

// With one process every function is the identity, and may be called from any thread. Otherwise all
// processes call the same ones in the same order, each from one thread.
class World {
 public:
  World();
  // Finds the other processes. Process 0 alone then writes to the terminal. REFRACT_JOIN_TIMEOUT in
  // the environment says how many seconds it waits for them (60).
  explicit World(const Ranks& ranks);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  // Of a run in one process.
  static World& single();

  int64_t rank() const { return ranks_.rank; }
  int64_t size() const { return ranks_.size; }
  bool leader() const { return ranks_.rank == 0; }
  const Ranks& ranks() const { return ranks_; }

  // Opens the engine for tensors on the device; `timeout`: seconds without a sign of life from a
  // process after which the others end.
  void connect(at::Device device, double timeout);

  // Of float tensors, contiguous and on the device; see ops/collectives/collectives.h.
  void all_reduce_(const at::Tensor& data, Reduction reduction);
  // in, out [size(), n] of any type: row j goes to process j.
  void all_to_all(const at::Tensor& in, const at::Tensor& out);
  // in [n], out [size(), n]; `in` may be out's own row.
  void all_gather(const at::Tensor& in, const at::Tensor& out);
  // Process 0's values, for everybody.
  void broadcast_(const at::Tensor& data);
  // Does `work`, which calls functions of these: on a GPU beside what the caller enqueues after it.
  void run_beside(const std::function<void()>& work);
  // What the caller enqueues from here on sees all of that done. Before any other exchange.
  void wait_beside();

  void barrier();
  // Process 0 does it; the others wait until it is done.
  void leader_alone(const std::function<void()>& work);
  // Everybody does it, one process of each machine before the others: what it leaves in files they
  // find there.
  void one_of_each_machine_first(const std::function<void()>& work);
  // Fails (usage) where `text` is not process 0's; says the first lines that differ.
  void require_same(const std::string& what, const std::string& text);
  // Process 0's number.
  int64_t number_of_leader(const std::string& what, int64_t number);
  // Whether all processes stop after `step` steps. `asked`: whether this one was told to.
  bool stops_after(int64_t step, bool asked);

  // The run is over: nobody leaves before the last one is done.
  void finish();
  // In a handler of `error`, which this process can't go on from. Alone it throws it again. Else
  // the process that failed first says it, with its number, and all of them end.
  [[noreturn]] void fail_together(const std::exception& error);

 private:
  void join();
  // Who is gone, where this process was the first to tell the others.
  std::optional<std::string> explain_lost_connection();
  template <class Call>
  void exchange(const Call& call);

  Ranks ranks_;
  int64_t join_seconds_ = 60;
  std::string name_of_first_;
  std::unique_ptr<Rendezvous> store_;
  std::unique_ptr<Watch> watch_;
  std::unique_ptr<Collectives> engine_;
  int64_t barriers_ = 0;
  int64_t stop_margin_ = 1;
  bool asked_to_stop_ = false;
  std::optional<int64_t> stop_after_;
};

}  // namespace refract
