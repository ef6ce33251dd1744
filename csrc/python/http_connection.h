// http_connection.h - the part of a client's connection that meets every request.
//
// A Python type without pybind11, whose calls cost more than what they do here: its receive() is
// called for all that arrives.  Where nothing but plain inference requests are about, one call
// takes a request from its bytes to the core.  Whatever is unusual goes on to the owner, the
// connection's Python half (pyserve/http/connection.py), which has the methods named below.
//
// Everything here needs the GIL and belongs to the event loop's thread.
#pragma once

#include <Python.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "batching/request.h"
#include "engine/model_version.h"
#include "python/http_plan.h"
#include "python/requests.h"

namespace pyserve::python {

class HttpLane;
struct HttpTarget;

struct HttpConnection {
  PyObject_HEAD PyObject* owner;  // null once the client has left
  PyObject* write;                // its transport's method; null before there is one
  PyObject* lane_object;          // keeps `lane`
  HttpLane* lane;

  // Set by the owner: what arrives next begins a request, and nothing is before it.
  bool open;
  // A request is under way in the express lane; and bytes behind it wait at the owner.
  bool busy;
  bool waiting;
  bool watched;  // the request under way has a deadline that the owner watches
  Nanos used;    // when the lane last took a request from it

  struct State {
    std::shared_ptr<const HttpPlan> plan;  // of the last request that had one for others too
    // What is under way.
    std::shared_ptr<const HttpTarget> target;
    RequestPtr request;  // null: it is gathered
    std::string id;      // of `request`
  };
  State state;
};

// A new reference to the type, for the module.
PyObject* http_connection_type();

// What a request is told whose deadline has passed; as pyserve/scheduling.py.
Status overdue();

// Has the owner watch the deadline of the request under way, if it has one.
void watch_deadline(HttpConnection& connection);

// What has become of the request under way: its answer is sent, or its failure is the owner's to
// word.  `id` is the request's.
void send_answer(HttpConnection& connection, std::string_view answer);
void send_failure(HttpConnection& connection, const HttpTarget& target, const Status& status,
                  const std::string& id);
// The plain lane must see to the request under way after all: its bytes.
void give_back(HttpConnection& connection, const pybind11::bytes& text);

}  // namespace pyserve::python
