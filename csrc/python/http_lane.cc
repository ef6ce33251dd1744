#include "python/http_lane.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "python/lane.h"
#include "python/native_call.h"
#include "tensor/collate.h"

namespace pyserve::python {
namespace {

// A request that takes less than this on the loop's thread is answered before it could have been
// handed to another and back.
constexpr Nanos kInstant = 40'000;

// A turn hardly ever takes longer.
constexpr Nanos kLongTurn = 5'000'000;

constexpr std::size_t kMaxTargets = 1024;
constexpr std::size_t kRecentPlans = 4;

// By when a request is to be answered that has just arrived.
Nanos when_due(const HttpRequest& http) {
  if (http.plan->timeout_us != 0) {
    return deadline_of(http.started, http.plan->timeout_us);
  }
  const Nanos timeout = http.target->version->default_timeout();
  return timeout != 0 ? http.started + timeout : kNever;
}

class HttpAttachment final : public PyAttachment {
 public:
  HttpAttachment(HttpLane& lane, HttpRequest http)
      : PyAttachment(http.target->version, http.connection), lane_(lane), http_(std::move(http)) {}

  bool deliver(const Request& request) const override {
    lane_.deliver(http_, request);
    return true;
  }

  HttpRequest& http() { return http_; }

 private:
  HttpLane& lane_;  // the connection keeps it
  HttpRequest http_;
};

}  // namespace

HttpLane::HttpLane(std::size_t max_body_bytes, bool refuse_origins, std::string fields,
                   bool rehearsal)
    : max_body_bytes_(max_body_bytes), refuse_origins_(refuse_origins), rehearsal_(rehearsal) {
  manner_.fields = std::move(fields);
}

void HttpLane::attach(py::object call_soon, std::shared_ptr<RequestQueue> queue) {
  call_soon_ = std::move(call_soon);
  queue_ = std::move(queue);
}

// ---- where paths lead ------------------------------------------------------------------------

void HttpLane::forget() {
  ++generation_;
  recent_.clear();
  // Out of the table first: the end of a version may let other threads run.
  const auto ended = std::move(targets_);
  targets_.clear();
}

py::list HttpLane::take_counts() {
  // The list is no longer ours once Python runs.
  const std::vector<std::shared_ptr<RouteCount>> all = counts_;
  py::list counts;
  for (const std::shared_ptr<RouteCount>& count : all) {
    if (count->answered > 0) {
      counts.append(py::make_tuple(count->route, std::exchange(count->answered, 0)));
    }
  }
  return counts;
}

std::shared_ptr<RouteCount> HttpLane::count_of(const py::object& route) {
  const auto found = std::ranges::find_if(
      counts_, [&](const std::shared_ptr<RouteCount>& count) { return count->route.is(route); });
  return found != counts_.end() ? *found
                                : counts_.emplace_back(std::make_shared<RouteCount>(route));
}

std::shared_ptr<HttpTarget> HttpLane::target(HttpConnection& connection, std::string_view path) {
  if (const auto found = targets_.find(path); found != targets_.end()) {
    return found->second;
  }
  const std::uint64_t generation = generation_;
  const py::object resolved = py::handle(connection.owner).attr("resolve")(path);
  if (resolved.is_none()) {
    return nullptr;
  }
  const auto [route, version] = resolved.cast<std::pair<py::object, VersionPtr>>();
  auto target = std::make_shared<HttpTarget>();
  target->version = version;
  target->count = count_of(route);
  const Signature& signature = version->signature();
  if (signature.batched && version->combines()) {
    const Nanos whole = version->time_here(signature.max_batch_size);
    target->row_time = whole == kNever ? kNever : whole / signature.max_batch_size + 1;
  }
  if (generation == generation_) {  // else it may lead elsewhere by now; good for this once
    if (targets_.size() >= kMaxTargets) {
      forget();
    }
    targets_.emplace(path, target);
  }
  return target;
}

// ---- from bytes to a request -----------------------------------------------------------------

std::shared_ptr<const HttpPlan> HttpLane::kept_plan(HttpConnection& connection,
                                                    std::string_view text) {
  const auto covers = [&](const std::shared_ptr<const HttpPlan>& plan) {
    return plan->generation == generation_ && plan->covers(text);
  };
  if (connection.state.plan != nullptr && covers(connection.state.plan)) {
    return connection.state.plan;
  }
  const auto found = std::ranges::find_if(recent_, covers);
  if (found == recent_.end()) {
    return nullptr;
  }
  connection.state.plan = *found;
  return *found;
}

void HttpLane::keep_plan(HttpConnection& connection, std::shared_ptr<HttpPlan> plan) {
  plan->generation = generation_;
  if (recent_.size() == kRecentPlans) {
    recent_.erase(recent_.begin());
  }
  recent_.push_back(plan);
  connection.state.plan = std::move(plan);
}

Taken HttpLane::take(HttpConnection& connection, PyObject* text, std::size_t begin) {
  const Nanos started = steady_clock().now();
  const std::string_view view =
      std::string_view(PyBytes_AS_STRING(text), static_cast<std::size_t>(PyBytes_GET_SIZE(text)))
          .substr(begin);
  HttpRequest http{
      .connection = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(&connection)),
      .started = started};
  http.bytes = {.text = py::reinterpret_borrow<py::object>(text), .begin = begin};
  if (auto plan = kept_plan(connection, view); plan != nullptr) {
    http.target = plan->target.lock();
    http.bytes.head_bytes = plan->head_bytes;
    http.bytes.body_bytes = plan->total_bytes - plan->head_bytes;
    http.plan = std::move(plan);
  } else {
    const std::optional<HttpHead> head = parse_http_head(view);
    if (!head.has_value() || !head->ordinary || head->body_bytes > max_body_bytes_ ||
        head->head_bytes + head->body_bytes > view.size() || (head->origin && refuse_origins_)) {
      return {};
    }
    http.bytes.head_bytes = head->head_bytes;
    http.bytes.body_bytes = head->body_bytes;
    http.target = target(connection, head->target);
    if (http.target == nullptr) {
      return {.by = Taken::By::kPlain, .size = head->head_bytes + head->body_bytes};
    }
    const ModelVersion& version = *http.target->version;
    std::shared_ptr<HttpPlan> read =
        reader_.read(version, *head, http.bytes.body_view(), http.inputs);
    if (read == nullptr) {
      ++counts_of_all_.left;
      return {.by = Taken::By::kPlain, .size = head->head_bytes + head->body_bytes};
    }
    reader_.keep(version.signature(), *head, view, http.inputs, *read);
    if (!read->prefix.empty()) {
      read->target = http.target;
      keep_plan(connection, read);
    }
    http.plan = std::move(read);
  }
  const std::size_t size = http.bytes.head_bytes + http.bytes.body_bytes;
  const bool taken = http.target != nullptr && this->begin(std::move(http));
  return {.by = taken ? Taken::By::kExpress : Taken::By::kPlain, .size = size};
}

bool HttpLane::take(HttpConnection& connection, const RequestHead& head, const py::object& body) {
  HttpRequest http{
      .connection = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(&connection)),
      .target = target(connection, head.head.target),
      .started = steady_clock().now()};
  if (http.target == nullptr) {
    return false;
  }
  http.bytes = {.text = head.text,
                .begin = head.begin,
                .head_bytes = head.head.head_bytes,
                .body_bytes = head.head.body_bytes};
  if (!body.is_none()) {
    http.bytes.body = body;
  }
  http.plan = reader_.read(*http.target->version, head.head, http.bytes.body_view(), http.inputs);
  if (http.plan == nullptr) {
    ++counts_of_all_.left;
    return false;
  }
  return begin(std::move(http));
}

// ---- on its way ------------------------------------------------------------------------------

bool HttpLane::begin(HttpRequest http) {
  if (was_forked()) {
    return false;  // the plain lane says what is wrong
  }
  HttpConnection& connection = http.client();
  const ModelVersion& version = *http.target->version;
  const Nanos now = steady_clock().now();
  http.parse_ns = now - http.started;
  http.deadline = when_due(http);
  connection.used = now;
  connection.state.target = http.target;
  connection.busy = true;
  ++under_way_;
  const bool alone = arrived_alone();
  // Who has less time than a turn of the loop may take is for those who foresee and refuse.
  const bool patient = http.deadline - now > kLongTurn;
  if (rehearsal_ || (alone && patient && version.in_flight() == 0)) {
    if (!http.plan->inputs.empty() && version.time_here(http.plan->rows) < kInstant) {
      const std::shared_ptr<HttpTarget> target = http.target;
      gather(std::move(http));
      run_gathered(target);
      return true;
    }
  } else if (patient && gathers(http)) {
    gather(std::move(http));
    return true;
  }
  const std::shared_ptr<HttpTarget> target = http.target;
  const std::string id = http.plan->id;
  const Status status = submit(std::move(http));
  if (status.code == Code::kUnavailable) {
    // The version is leaving, and the path may lead to another one by now.
    ++counts_of_all_.left;
    connection.busy = false;
    connection.state.target = nullptr;
    ended();
    return false;
  }
  if (!status.ok()) {
    send_failure(connection, *target, status, id);
  }
  return true;
}

Status HttpLane::submit(HttpRequest http) {
  if (rehearsal_) {
    return unavailable("nothing waits in a rehearsal");
  }
  auto request = std::make_shared<Request>();
  HttpConnection& connection = http.client();
  const VersionPtr version = http.target->version;
  const std::shared_ptr<const HttpPlan> plan = http.plan;
  request->inputs = http.values();
  request->rows = http.plan->rows;
  request->borrows = true;
  request->keeps_outputs = false;
  request->queue = queue_;
  schedule(*request, *version, http.deadline == kNever ? 0 : http.deadline, http.plan->priority);
  request->key = version->signature().padding.key(request->inputs);
  request->attachment = std::make_unique<HttpAttachment>(*this, std::move(http));
  Status status = version->submit(request);
  if (status.ok()) {
    ++counts_of_all_.queued;
    connection.state.request = std::move(request);
    connection.state.id = plan->id;
    watch_deadline(connection);
  } else {
    counts_of_all_.refused += status.code == Code::kUnavailable ? 0 : 1;
    release_inputs(*request);
  }
  return status;
}

// The loop's thread may not run it after all: another one is at it, or the version drains.
void HttpLane::queue_instead(HttpRequest& http) {
  HttpConnection& connection = http.client();
  if (connection.owner == nullptr) {
    return;
  }
  const std::shared_ptr<HttpTarget> target = http.target;
  const RequestBytes bytes = http.bytes;
  const std::string id = http.plan->id;
  const Status status = submit(std::move(http));
  if (status.code == Code::kUnavailable) {
    ++counts_of_all_.left;
    give_back(connection, bytes.whole());
  } else if (!status.ok()) {
    send_failure(connection, *target, status, id);
  }
}

// ---- back ------------------------------------------------------------------------------------

void HttpLane::deliver(const HttpRequest& http, const Request& request) {
  HttpConnection& connection = http.client();
  if (connection.state.request.get() != &request) {
    return;  // it ended before it came back; the connection may be at another one
  }
  if (!request.status.ok()) {
    send_failure(connection, *http.target, request.status, http.plan->id);
    return;
  }
  answer(http, request.outputs, {.rows = request.rows},
         http.told(request.timing, request.timing.queue));
}

void HttpLane::answer(const HttpRequest& http, const Values& outputs, const BatchPart& part,
                      const OipAnswerTiming& timing) {
  HttpConnection& connection = http.client();
  if (connection.owner == nullptr) {
    return;
  }
  std::string_view text;
  Status status;
  try {
    status =
        write_http_answer(*http.plan, *http.target->version, outputs, part, timing, manner_, text);
  } catch (const std::exception& error) {
    status = model_failed(error.what());  // nothing may be lost: the client hears of it
  }
  if (!status.ok()) {
    send_failure(connection, *http.target, status, http.plan->id);
    return;
  }
  ++http.target->count->answered;
  send_answer(connection, text);
}

void HttpLane::ended() {
  --under_way_;
  if (under_way_ == 0 && !when_idle_.is_none()) {
    const py::object call = std::exchange(when_idle_, py::none());
    call();
  }
}

void define_http_lane(py::module_& m) {
  using py::literals::operator""_a;
  py::class_<HttpLane>(m, "HttpLane")
      .def(py::init<std::size_t, bool, std::string, bool>(), py::kw_only(),
           py::arg("max_body_bytes"), py::arg("refuse_origins") = false, py::arg("fields") = "",
           py::arg("rehearsal") = false)
      .def(
          "attach",
          [](HttpLane& lane, py::object call_soon, const PyCompletionQueue& queue) {
            lane.attach(std::move(call_soon), queue.queue());
          },
          py::arg("call_soon"), py::arg("queue"))
      .def("stop_taking", &HttpLane::stop_taking)
      .def("close_connections", &HttpLane::close_connections)
      .def("forget", &HttpLane::forget)
      .def("take_counts", &HttpLane::take_counts)
      .def("set_when_idle", &HttpLane::set_when_idle, py::arg("call"))
      .def_property_readonly("counts",
                             [](const HttpLane& lane) {
                               const LaneCounts& counts = lane.counts();
                               return py::dict("run"_a = counts.run, "queued"_a = counts.queued,
                                               "refused"_a = counts.refused,
                                               "left"_a = counts.left);
                             })
      .def_property_readonly("under_way", &HttpLane::under_way);
  m.attr("HttpConnection") = py::reinterpret_steal<py::object>(http_connection_type());
}

}  // namespace pyserve::python
