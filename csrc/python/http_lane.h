// http_lane.h - the express lane of HTTP: what all connections of one server share.
//
// A request that is plain (csrc/wire/http_head.h, http_plan.h) and whose path leads to a live
// version is run or submitted here, and answered with bytes; every other is the plain lane's, which
// has not lost a byte of it.  Which version a path leads to is looked up in Python once and
// remembered until any model changes (forget()).
//
// Light models are run on the event loop's own thread: a lone request at once, and those that
// arrive in one turn of the loop together at its end, so that no thread is woken and no cache line
// changes hands.  A turn runs models for kTurnTime at most; what is beyond goes to the instances.
//
// Everything here needs the GIL and belongs to the event loop's thread, but for forget().
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "python/http_answer.h"
#include "python/http_bytes.h"
#include "python/http_connection.h"
#include "python/http_plan.h"
#include "python/requests.h"

namespace pyserve::python {

// The bytes of one request, as they came.
struct RequestBytes {
  py::object text;        // its head, and its body where that came with it
  std::size_t begin = 0;  // in `text`
  std::size_t head_bytes = 0;
  std::size_t body_bytes = 0;
  py::object body;  // a RequestBody; none: it is in `text`

  std::string_view body_view() const;
  py::bytes whole() const;
};

// A request that the lane takes: read, checked, and on its way.
struct HttpRequest {
  py::object connection;  // an HttpConnection
  std::shared_ptr<HttpTarget> target;
  std::shared_ptr<const HttpPlan> plan;
  HttpInputs inputs;  // without values: as planned
  RequestBytes bytes;
  Nanos started = 0;
  Nanos parse_ns = 0;
  Nanos deadline = kNever;

  HttpConnection& client() const;
  // The memory of one of its inputs, where all are numbers.
  const std::byte* data(std::size_t index) const;
  Values values() const;
  // Where its time went, for the answer.
  OipAnswerTiming told(const Timing& timing, Nanos queue_ns) const;
};

struct RouteCount {
  py::object route;
  std::int64_t answered = 0;  // with 200, and not yet told
};

// A path, and the version that it leads to.
struct HttpTarget {
  VersionPtr version;
  std::shared_ptr<RouteCount> count;
  Nanos row_time = kNever;  // of a row in a batch on the loop's thread
  // Those of this turn of the loop that wait to be run together.
  std::vector<HttpRequest> gathered;
  std::int64_t rows = 0;
};

// What became of the request that some bytes begin with.
struct Taken {
  enum class By : std::uint8_t {
    kNobody,   // there is none that is whole and plain
    kExpress,  // under way, or answered
    kPlain,    // it is to be the plain lane's
  };
  By by = By::kNobody;
  std::size_t size = 0;
};

// What the lane has made of the requests on its paths.
struct LaneCounts {
  std::int64_t run = 0;  // on the loop's thread
  std::int64_t queued = 0;
  std::int64_t refused = 0;
  std::int64_t left = 0;  // to the plain lane
};

class HttpLane {
 public:
  // A rehearsal answers what can be answered at once, and counts nothing.
  HttpLane(std::size_t max_body_bytes, bool refuse_origins, std::string fields, bool rehearsal);

  // The loop's call_soon, and where the core's completions go.
  void attach(py::object call_soon, std::shared_ptr<RequestQueue> queue);
  // From now on nothing is taken; and each connection ends with its next answer.
  void stop_taking() { taking_ = false; }
  void close_connections() { manner_.close = true; }
  // Paths may lead elsewhere from now on.  From any thread.
  void forget();
  // [(route, answers with 200), ...] since the last call.
  py::list take_counts();
  const LaneCounts& counts() const { return counts_of_all_; }
  std::int64_t under_way() const { return under_way_; }
  // Called once, when nothing is under way any more.
  void set_when_idle(py::object call) { when_idle_ = std::move(call); }

  // --- for connections ---

  bool taking() const { return taking_; }
  bool closing() const { return manner_.close; }
  // What a path leads to; null: the plain lane.
  std::shared_ptr<HttpTarget> target(HttpConnection& connection, std::string_view path);
  // Takes the request that `text` has at `begin`, if it is whole and plain.
  Taken take(HttpConnection& connection, PyObject* text, std::size_t begin);
  // Takes a request whose head was read before, and whose body may have come in pieces.
  bool take(HttpConnection& connection, const RequestHead& head, const py::object& body);
  // A request of the lane has ended.
  void ended();
  // A finished request has come back from the core.
  void deliver(const HttpRequest& http, const Request& request);

 private:
  std::shared_ptr<const HttpPlan> kept_plan(HttpConnection& connection, std::string_view text);
  void keep_plan(HttpConnection& connection, std::shared_ptr<HttpPlan> plan);
  bool begin(HttpRequest http);
  std::shared_ptr<RouteCount> count_of(const py::object& route);
  bool arrived_alone();
  void end_turn();
  bool gathers(const HttpRequest& http);
  void gather(HttpRequest http);
  void run_gathered(const std::shared_ptr<HttpTarget>& target);
  bool is_over(const HttpRequest& http, Nanos now);
  void run_together(std::span<HttpRequest> requests);
  Status submit(HttpRequest http);
  void queue_instead(HttpRequest& http);
  void answer(const HttpRequest& http, const Values& outputs, const BatchPart& part,
              const OipAnswerTiming& timing);

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };

  const std::size_t max_body_bytes_;
  const bool refuse_origins_;
  const bool rehearsal_;
  bool taking_ = true;
  AnswerManner manner_;
  py::object call_soon_;
  py::object when_idle_ = py::none();
  std::shared_ptr<RequestQueue> queue_;
  std::int64_t under_way_ = 0;

  std::unordered_map<std::string, std::shared_ptr<HttpTarget>, Hash, std::equal_to<>> targets_;
  std::uint64_t generation_ = 1;
  std::vector<std::shared_ptr<RouteCount>> counts_;
  LaneCounts counts_of_all_;
  std::vector<std::shared_ptr<const HttpPlan>> recent_;  // plans, the next to go first
  HttpReader reader_;

  // This turn of the loop, and the last that saw any request.
  std::int64_t arrivals_ = 0;
  std::int64_t last_arrivals_ = 0;
  Nanos turn_time_ = 0;                               // that models will take in it
  std::vector<std::shared_ptr<HttpTarget>> waiting_;  // targets that have gathered some
};

// HttpLane and HttpConnection, behind define_http_bytes.
void define_http_lane(pybind11::module_& m);

}  // namespace pyserve::python
