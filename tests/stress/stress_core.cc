// stress_core - whole model versions under a crowd, over a model without torch operators.
//
//   stress_core SECONDS [SEED]
//
// Round after round a version of random settings is made, used and ended.  Clients submit
// requests of several shapes, some poisoned, some with a deadline; half of them wait for their
// request and may leave early, the others get theirs from a completion queue; a canceller and a
// closer race them all.  Every admitted request must come back exactly once, with the outcome of
// the one winner, with its own numbers, and what was attached to it must die on a client's side.
//
// Exits 0 if all agreed, 1 if not (the first disagreements are printed), 2 on bad usage.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "batching/request.h"
#include "complaints.h"
#include "engine/model_version.h"
#include "runtime/executable.h"
#include "tensor/collate.h"

namespace pyserve {
namespace {

using Random = std::mt19937_64;

constexpr std::size_t kClients = 4;
constexpr int kRequestsPerClient = 400;
constexpr Nanos kPatience = 60'000'000'000;

// First number of a row that the model cannot stand.
constexpr float kRaise = -1;
constexpr float kLoseARow = -2;
constexpr float kAddAnOutput = -3;

// True on threads where what a submitter attached may die.
thread_local bool clients_side = false;

Value rows_of(std::int64_t rows, std::int64_t width, float value) {
  at::Tensor tensor = at::empty({rows, width}, at::TensorOptions().dtype(at::kFloat));
  std::fill_n(tensor.mutable_data_ptr<float>(), rows * width, value);
  return Value(std::move(tensor));
}

bool is_all(const Value& value, std::int64_t rows, std::int64_t width, float expected) {
  const at::Tensor& tensor = value.tensor;
  if (!tensor.defined() || tensor.dim() != 2 || tensor.size(0) != rows || tensor.size(1) != width ||
      !tensor.is_contiguous()) {
    return false;
  }
  const auto* const data = tensor.const_data_ptr<float>();
  return std::all_of(data, data + rows * width, [&](float x) { return x == expected; });
}

// y = x + 1, by hand: what it reads and writes is seen by a sanitizer.
class Increment final : public Executable {
 public:
  // A run takes at least `run_time`, less on more threads: long ones are worth regrouping for.
  explicit Increment(Nanos run_time) : run_time_(run_time) {}

  const std::vector<TensorSpec>& arguments() const override { return arguments_; }
  void set_outputs(const std::vector<TensorSpec>&) override {}
  std::unique_ptr<Executable> optimized() const override { return nullptr; }

  RunResult run(const Values& inputs) const override {
    if (run_time_ > 0) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(run_time_ / at::get_num_threads()));
    }
    const at::Tensor& x = inputs.front().tensor;
    const auto* const in = x.const_data_ptr<float>();
    const std::int64_t width = x.size(1);
    std::int64_t rows = x.size(0);
    RunResult result{.names = {"y"}};
    for (std::int64_t row = 0; row < x.size(0); ++row) {
      const float first = in[row * width];
      if (first == kRaise) {
        throw std::runtime_error("poisoned");
      }
      rows -= first == kLoseARow ? 1 : 0;
      if (first == kAddAnOutput) {
        result.values.push_back(inputs.front());
      }
    }
    at::Tensor y = at::empty({rows, width}, x.options());
    std::transform(in, in + rows * width, y.mutable_data_ptr<float>(),
                   [](float number) { return number + 1; });
    result.values.emplace_back(std::move(y));
    return result;
  }

 private:
  const Nanos run_time_;
  const std::vector<TensorSpec> arguments_{{.name = "x"}};
};

// What a client knows of its request, and gets back with it.
struct Ticket final : Attachment {
  Ticket(std::int64_t width, float value, Complaints& complaints, std::atomic<std::int64_t>& alive)
      : width(width), value(value), complaints(complaints), alive(alive) {
    alive.fetch_add(1, std::memory_order_relaxed);
  }
  ~Ticket() override {
    alive.fetch_sub(1, std::memory_order_relaxed);
    if (!clients_side) {
      complaints.add("an attachment died on an instance's thread");
    }
  }
  bool poisoned() const { return value < 0; }

  const std::int64_t width;
  const float value;
  Complaints& complaints;
  std::atomic<std::int64_t>& alive;
};

// One version from load to end.
class Round {
 public:
  Round(std::uint64_t seed, Complaints& complaints) : seed_(seed), complaints_(complaints) {
    Random random = this->random(0);
    const Nanos run_time = std::array{0, 0, 0, 500'000}[random() % 4];
    version_ = std::make_unique<ModelVersion>(
        options(random), std::make_unique<Increment>(run_time), steady_clock());
    ending_ = static_cast<int>(random() % 3);
    close_after_ = static_cast<std::int64_t>(random() % (kClients * kRequestsPerClient));
  }

  void run();

  std::int64_t admitted() const { return admitted_.load(); }
  const std::array<std::atomic<std::int64_t>, kAllCodes.size()>& codes() const { return codes_; }

 private:
  [[nodiscard]] Random random(std::uint64_t stream) const {
    return Random(seed_ + stream * 0x9E3779B97F4A7C15U);
  }

  static LoadOptions options(Random& random);
  void client(std::size_t self);
  void canceller();
  void reader();
  void closer();
  RequestPtr make_request(Random& random);
  void wait_for(const RequestPtr& request, Random& random);
  void check(Request& request);
  void drain_orphans();

  const std::uint64_t seed_;
  Complaints& complaints_;
  const std::shared_ptr<RequestQueue> queue_ = std::make_shared<RequestQueue>();
  std::unique_ptr<ModelVersion> version_;
  int ending_ = 0;
  std::int64_t close_after_ = 0;

  std::atomic<std::int64_t> submitted_{0};
  std::atomic<std::int64_t> admitted_{0};
  std::atomic<std::int64_t> returned_{0};
  std::atomic<std::int64_t> alive_{0};  // tickets
  std::atomic<bool> clients_gone_{false};
  std::array<std::atomic<std::int64_t>, kAllCodes.size()> codes_{};

  std::mutex orphans_mutex_;  // one reader at a time
  std::mutex condemned_mutex_;
  std::deque<RequestPtr> condemned_;
};

LoadOptions Round::options(Random& random) {
  LoadOptions options;
  options.name = "stress";
  options.version = "1";
  options.device = "cpu";
  options.inputs = {{TensorSpec{.name = "x", .dtype = Dtype::kFp32, .shape = {{-1}}}}};
  options.outputs = {{TensorSpec{.name = "y", .dtype = Dtype::kFp32, .shape = {{-1}}}}};
  options.batched = true;
  options.max_batch_size = std::array{1, 2, 8, 32}[random() % 4];
  options.max_queue_delay = std::array<std::optional<Nanos>, 5>{std::nullopt, std::nullopt, 0,
                                                                20'000, 1'000'000}[random() % 5];
  options.queue_capacity = std::array{4, 32, 256}[random() % 3];
  options.instances = static_cast<int>(1 + random() % 3);
  options.elastic = random() % 2 == 0;
  options.idle_spin = std::array{0, 5'000, 50'000}[random() % 3];
  options.warmup = random() % 2 == 0;
  options.examples = {{rows_of(1, 2, 7)}};
  return options;
}

RequestPtr Round::make_request(Random& random) {
  const auto width = static_cast<std::int64_t>(1 + random() % 3);
  const auto rows = static_cast<std::int64_t>(
      1 + random() % static_cast<std::uint64_t>(version_->signature().max_batch_size));
  auto value = static_cast<float>(random() % 1'000'000);
  if (random() % 16 == 0) {
    // Rows are counted only where requests share a batch.
    value = std::array{kRaise, kAddAnOutput, kLoseARow}[random() % (version_->combines() ? 3 : 2)];
  }
  auto request = std::make_shared<Request>();
  request->inputs = {rows_of(rows, width, value)};
  request->rows = rows;
  request->key = Padding().key(request->inputs);
  request->borrows = random() % 2 == 0;
  request->keeps_outputs = random() % 2 == 0;
  request->attachment = std::make_unique<Ticket>(width, value, complaints_, alive_);
  if (random() % 4 == 0) {
    request->deadline = steady_clock().now() + static_cast<Nanos>(random() % 500'000);
  }
  request->priority = static_cast<Priority>(kHighPriority + random() % kPriorities);
  if (random() % 2 == 0) {
    request->queue = queue_;
  }
  return request;
}

void Round::client(std::size_t self) {
  clients_side = true;
  Random random = this->random(1 + self);
  for (int i = 0; i < kRequestsPerClient; ++i) {
    const RequestPtr request = make_request(random);
    submitted_.fetch_add(1, std::memory_order_relaxed);
    const bool waits = request->queue == nullptr;
    if (const Status status = version_->submit(request); !status.ok()) {
      codes_[static_cast<std::size_t>(status.code)].fetch_add(1, std::memory_order_relaxed);
      if (status.code == Code::kQueueFull) {
        std::this_thread::yield();
      }
      continue;
    }
    admitted_.fetch_add(1, std::memory_order_relaxed);
    if (waits) {
      wait_for(request, random);
    } else if (random() % 4 == 0) {
      const std::scoped_lock lock(condemned_mutex_);
      condemned_.push_back(request);
    }
  }
}

void Round::wait_for(const RequestPtr& request, Random& random) {
  const Nanos now = steady_clock().now();
  const Nanos spin = random() % 2 == 0 ? 10'000 : 0;
  if (random() % 4 != 0) {
    if (!request->wait(now + kPatience, spin, steady_clock())) {
      complaints_.add("a request was not delivered for a minute");
      std::abort();  // the rest would wait for it for ever
    }
  } else if (!request->wait(now + static_cast<Nanos>(random() % 200'000), spin, steady_clock())) {
    if (random() % 2 == 0) {
      static_cast<void>(random() % 2 == 0 ? version_->cancel(*request)
                                          : version_->expire(*request));
    }
    if (request->abandon()) {
      drain_orphans();
      return;
    }
  }
  check(*request);
}

void Round::drain_orphans() {
  const std::scoped_lock lock(orphans_mutex_);
  version_->orphans().drain([this](const RequestPtr& request) { check(*request); });
}

// Tells on a request that came back, and takes from it what must not die elsewhere.
void Round::check(Request& request) {
  const auto* const ticket = static_cast<const Ticket*>(request.attachment.get());
  if (ticket == nullptr) {
    complaints_.add("a request came back twice");
    return;
  }
  returned_.fetch_add(1, std::memory_order_relaxed);
  const Code code = request.status.code;
  codes_[static_cast<std::size_t>(code)].fetch_add(1, std::memory_order_relaxed);
  const Outcome outcome = request.claim.outcome();
  bool agrees = false;
  switch (code) {
    case Code::kOk:
      agrees = outcome == Outcome::kCompleted && !ticket->poisoned() &&
               request.outputs.size() == 1 &&
               is_all(request.outputs[0], request.rows, ticket->width, ticket->value + 1);
      break;
    case Code::kModelFailed:
      agrees = outcome == Outcome::kCompleted && ticket->poisoned();
      break;
    case Code::kCancelled:
    case Code::kUnavailable:
      agrees = outcome == Outcome::kCancelled && request.outputs.empty();
      break;
    case Code::kDeadlineExceeded:
      agrees = outcome == Outcome::kExpired && request.outputs.empty();
      break;
    case Code::kInvalidInput:
    case Code::kQueueFull:
      break;
  }
  if (!agrees) {
    complaints_.add("a request's status, outcome and outputs do not agree");
  }
  if (!is_all(request.inputs[0], request.rows, ticket->width, ticket->value)) {
    complaints_.add("a request's inputs were changed");
  }
  request.inputs.clear();
  request.outputs.clear();
  request.attachment.reset();
}

void Round::canceller() {
  clients_side = true;
  Random random = this->random(1 + kClients);
  while (!clients_gone_.load(std::memory_order_acquire)) {
    RequestPtr request;
    {
      const std::scoped_lock lock(condemned_mutex_);
      if (!condemned_.empty()) {
        request = std::move(condemned_.front());
        condemned_.pop_front();
      }
    }
    if (request == nullptr) {
      std::this_thread::yield();
      continue;
    }
    const bool cancelled = version_->cancel(*request);
    if (random() % 2 == 0 && version_->expire(*request) && cancelled) {
      complaints_.add("a request was cancelled and expired");
    }
  }
}

void Round::reader() {
  clients_side = true;
  pollfd watched{.fd = queue_->event_fd(), .events = POLLIN, .revents = 0};
  for (bool more = true; more;) {
    if (poll(&watched, 1, static_cast<int>(kPatience / 1'000'000)) != 1) {
      complaints_.add("the reader was not woken for a minute");
      return;
    }
    queue_->drain([&](const RequestPtr& request) {
      if (request->rows == 0) {
        more = false;
      } else {
        check(*request);
      }
    });
  }
}

// Ends the version while the clients are at it, or when they are done.
void Round::closer() {
  clients_side = true;
  while (submitted_.load(std::memory_order_relaxed) < close_after_) {
    std::this_thread::yield();
  }
  if (ending_ == 1) {
    static_cast<void>(version_->drain(steady_clock().now() + 100'000));
  }
  if (ending_ != 0) {
    version_->close();
  }
}

void Round::run() {
  {
    const std::jthread reading([this] { reader(); });
    {
      const std::jthread cancelling([this] { canceller(); });
      {
        const std::jthread closing([this] { closer(); });
        std::vector<std::jthread> clients;
        clients.reserve(kClients);
        for (std::size_t i = 0; i < kClients; ++i) {
          clients.emplace_back([this, i] { client(i); });
        }
      }
      clients_gone_.store(true, std::memory_order_release);
    }
    if (!version_->drain(steady_clock().now() + kPatience)) {
      complaints_.add("a drain did not end in a minute");
    }
    const VersionStats stats = version_->stats();
    if (stats.queued != 0 || stats.in_flight != 0) {
      complaints_.add("something is counted as in flight after a drain");
    }
    version_->close();
    auto last = std::make_shared<Request>();
    last->rows = 0;
    queue_->push(std::move(last));
  }
  clients_side = true;
  drain_orphans();
  condemned_.clear();
  if (returned_.load() != admitted_.load()) {
    complaints_.add("not every admitted request came back");
  }
  version_.reset();
  if (alive_.load() != 0) {
    complaints_.add("a ticket outlived its version");
  }
}

template <class T>
std::optional<T> parse(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

// The whole of main().
int run(const std::vector<std::string_view>& arguments) {
  const double seconds = !arguments.empty() ? parse<double>(arguments[0]).value_or(-1) : -1;
  const auto seed = arguments.size() > 1 ? parse<std::uint64_t>(arguments[1])
                                         : std::optional<std::uint64_t>(std::random_device{}());
  if (arguments.size() > 2 || !(seconds >= 0 && seconds < 1e6) || !seed.has_value()) {
    std::fprintf(stderr, "usage: stress_core SECONDS [SEED]\n");
    return 2;
  }
  std::printf("stress_core %g %llu\n", seconds, static_cast<unsigned long long>(seed.value()));
  std::fflush(stdout);

  Complaints complaints;
  const Nanos end = steady_clock().now() + static_cast<Nanos>(seconds * 1e9);
  std::int64_t rounds = 0;
  std::int64_t admitted = 0;
  std::array<std::int64_t, kAllCodes.size()> codes{};
  do {
    Round round(seed.value() + static_cast<std::uint64_t>(rounds), complaints);
    round.run();
    ++rounds;
    admitted += round.admitted();
    for (std::size_t i = 0; i < codes.size(); ++i) {
      codes[i] += round.codes()[i].load();
    }
  } while (steady_clock().now() < end && complaints.count() == 0);

  std::printf("%-18s %12lld\n%-18s %12lld\n", "rounds", static_cast<long long>(rounds), "admitted",
              static_cast<long long>(admitted));
  for (const Code code : kAllCodes) {
    std::printf("%-18s %12lld\n", std::string(code_name(code)).c_str(),
                static_cast<long long>(codes[static_cast<std::size_t>(code)]));
  }
  return complaints.count() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace pyserve

int main(int argc, char** argv) {
  try {
    return pyserve::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stress_core: %s\n", error.what());
    return 1;
  }
}
