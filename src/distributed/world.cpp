#include "distributed/world.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <new>
#include <sstream>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "distributed/engines.h"
#include "distributed/rendezvous.h"
#include "distributed/watch.h"

namespace refract {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kBetweenLooks = std::chrono::milliseconds(20);

// On a GPU the host runs ahead of the device, by no more steps than it has staging buffers for; the
// processes' devices are together in every collective. So a stop that lies this far ahead reaches
// every process before it gets there.
constexpr int64_t kStopMarginOnGpu = 16;

std::string here_key(int64_t rank) { return "here/" + std::to_string(rank); }

int64_t join_timeout() {
  const auto text = environment_variable("REFRACT_JOIN_TIMEOUT");
  if (!text) return 60;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error != std::errc() || end != text->data() + text->size() || seconds < 1)
    fail_usage("REFRACT_JOIN_TIMEOUT = '{}' in the environment is no number of seconds", *text);
  return seconds;
}

std::string line_of(std::istringstream& text) {
  std::string line;
  return std::getline(text, line) ? line : "nothing";
}

void check_memory(const at::Tensor& data) {
  if (!data.is_contiguous()) throw std::logic_error("what processes exchange is contiguous");
}

}  // namespace

World::World() = default;
World::~World() = default;

World& World::single() {
  static World world;
  return world;
}

World::World(const Ranks& ranks) : ranks_(ranks) {
  if (size() == 1) return;
  if (!leader()) log_to_file_only();
  join_seconds_ = join_timeout();
  join();
}

void World::join() {
  store_ = std::make_unique<Rendezvous>(ranks_, join_seconds_);
  store_->set(sign_key(rank()), std::string("joined"));
  store_->set(here_key(rank()), own_description());
  const auto end = Clock::now() + std::chrono::seconds(join_seconds_);
  std::vector<int64_t> missing;
  for (int64_t other = 0; other < size(); ++other) {
    while (!store_->look(here_key(other)) && Clock::now() < end)
      std::this_thread::sleep_for(kBetweenLooks);
    if (!store_->look(here_key(other))) missing.push_back(other);
  }
  if (!missing.empty()) {
    fail("only {} of {} processes came together within {} s (REFRACT_JOIN_TIMEOUT); missing: {}",
         size() - static_cast<int64_t>(missing.size()), size(), join_seconds_,
         fmt::join(missing, ", "));
  }
  name_of_first_ = describe_process(*store_, 0);
  watch_ = std::make_unique<Watch>(ranks_, join_seconds_, name_of_first_);
}

void World::connect(at::Device device, double timeout) {
  if (size() == 1) return;
  require_same("the kind of device", device.is_cuda() ? "cuda" : "cpu");
  watch_->set_timeout(timeout);
  if (device.is_cuda()) stop_margin_ = kStopMarginOnGpu;
  engine_ = open_engine(device, ranks_, *store_, join_seconds_);
}

template <class Call>
void World::exchange(const Call& call) {
  try {
    call(*engine_);
  } catch (const std::exception& error) {
    throw ConnectionError(error.what());
  }
}

void World::all_reduce_(const at::Tensor& data, Reduction reduction) {
  if (size() == 1) return;
  check_memory(data);
  exchange([&](Collectives& engine) {
    engine.all_reduce(data.mutable_data_ptr<float>(), data.numel(), reduction);
  });
}

void World::all_to_all(const at::Tensor& in, const at::Tensor& out) {
  if (size() == 1) {
    out.copy_(in);
    return;
  }
  check_memory(in);
  check_memory(out);
  exchange([&](Collectives& engine) {
    engine.all_to_all(in.const_data_ptr(), out.mutable_data_ptr(),
                      static_cast<int64_t>(in.nbytes()) / size());
  });
}

void World::all_gather(const at::Tensor& in, const at::Tensor& out) {
  if (size() == 1) {
    if (!in.is_alias_of(out)) out.view_as(in).copy_(in);
    return;
  }
  check_memory(in);
  check_memory(out);
  exchange([&](Collectives& engine) {
    engine.all_gather(in.const_data_ptr(), out.mutable_data_ptr(),
                      static_cast<int64_t>(in.nbytes()));
  });
}

void World::broadcast_(const at::Tensor& data) {
  if (size() == 1 || data.numel() == 0) return;
  check_memory(data);
  exchange([&](Collectives& engine) {
    engine.broadcast(data.mutable_data_ptr(), static_cast<int64_t>(data.nbytes()));
  });
}

void World::run_beside(const std::function<void()>& work) {
  if (size() == 1) return work();
  exchange([&](Collectives& engine) { engine.run_beside(work); });
}

void World::wait_beside() {
  if (size() > 1) exchange([](Collectives& engine) { engine.wait_beside(); });
}

void World::barrier() {
  if (size() == 1) return;
  const std::string key = "barrier/" + std::to_string(barriers_++), open = key + "/open";
  if (store_->count(key) == size()) {
    store_->set(open, std::string("yes"));
  } else {
    store_->get(open);
  }
}

void World::leader_alone(const std::function<void()>& work) {
  if (leader()) work();
  barrier();
}

void World::one_of_each_machine_first(const std::function<void()>& work) {
  if (ranks_.local_rank == 0) work();
  barrier();
  if (ranks_.local_rank != 0) work();
}

void World::require_same(const std::string& what, const std::string& text) {
  if (size() == 1) return;
  const std::string key = "same/" + what;
  if (leader()) {
    store_->set(key, text);
    return;
  }
  const std::string first = store_->text(key);
  if (first == text) return;
  std::istringstream theirs(first), own(text);
  std::string a, b;
  do {
    a = line_of(theirs);
    b = line_of(own);
  } while (a == b);
  fail_usage("{} differs between the processes: process 0 has '{}', process {} has '{}'", what, a,
             rank(), b);
}

int64_t World::number_of_leader(const std::string& what, int64_t number) {
  if (size() == 1) return number;
  const std::string key = "number/" + what;
  if (leader()) store_->set(key, std::to_string(number));
  return std::stoll(store_->text(key));
}

bool World::stops_after(int64_t step, bool asked) {
  if (size() == 1) return asked;
  if (asked && !asked_to_stop_) {
    asked_to_stop_ = true;
    store_->claim("stop", std::to_string(step + stop_margin_));
  }
  if (!stop_after_) {
    if (const auto text = store_->look("stop")) stop_after_ = std::stoll(*text);
  }
  return stop_after_ && step >= *stop_after_;
}

void World::finish() {
  if (size() == 1) return;
  barrier();
  watch_.reset();
  engine_.reset();
  Watch::linger(*store_, ranks_);
  store_.reset();
}

// Where a process is gone, its missing signs of life say which; whoever failed and could say so has
// done it by then. This process gives signs until it knows. Leaves where that was another than this
// process.
std::optional<std::string> World::explain_lost_connection() {
  constexpr auto kPatience = std::chrono::seconds(5), kSilence = std::chrono::seconds(2);
  const auto start = Clock::now();
  std::vector<std::string> keys, signs;
  for (int64_t other = 0; other < size(); ++other) keys.push_back(sign_key(other));
  signs = store_->look_at(keys);
  std::vector<Clock::time_point> since(signs.size(), start);
  while (Clock::now() < start + kPatience) {
    std::this_thread::sleep_for(kBetweenLooks);
    if (const auto cause = store_->look("failed"))
      Watch::leave(*store_, ranks_, Cause::decoded(*cause));
    const std::vector<std::string> now = store_->look_at(keys);
    for (size_t other = 0; other < now.size(); ++other) {
      if (static_cast<int64_t>(other) == rank()) continue;
      if (now[other] != signs[other]) since[other] = Clock::now();
      if (Clock::now() < since[other] + kSilence) continue;
      const std::string gone = describe_process(*store_, static_cast<int64_t>(other));
      Cause cause{1, own_host(), gone + " ended without a word: was it killed?"};
      watch_.reset();
      Watch::announce(*store_, ranks_, cause);
      return cause.text;
    }
    signs = now;
  }
  return std::nullopt;
}

// The first to know says it before the others do anything: whoever started them may end this
// process as soon as one of them has ended.
void World::fail_together(const std::exception& error) {
  if (size() == 1 || !store_) throw;
  const auto* own = dynamic_cast<const Error*>(&error);
  const int code = static_cast<int>(own ? own->code() : ExitCode::kFailed);
  const bool full = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  const std::string what = full ? "out of memory" : error.what();
  std::string text = what.substr(0, what.find('\n'));
  std::optional<std::string> announced;
  try {
    if (dynamic_cast<const ConnectionError*>(&error)) {
      announced = explain_lost_connection();
    } else if (!leader()) {
      // What is wrong for everybody is best told by process 0.
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      text = fmt::format("process {}: {}", rank(), text);
    }
    watch_.reset();
    if (!announced) Watch::announce(*store_, ranks_, {code, own_host(), text});
    Watch::say(announced.value_or(text));
    Watch::linger(*store_, ranks_);
  } catch (const ConnectionError&) {
    // The store is gone, and process 0 with it. Of the others one is enough to tell.
    text = name_of_first_ + " ended without a word: was it killed?";
    if (rank() == 1) Watch::say(text);
  }
  std::_Exit(code);
}

}  // namespace refract
