#include "python/http_connection.h"

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "base/status.h"
#include "python/http_bytes.h"
#include "python/http_lane.h"
#include "python/native_call.h"

namespace pyserve::python {
namespace {

HttpConnection& self_of(PyObject* object) { return *reinterpret_cast<HttpConnection*>(object); }

// Runs what may throw for a method that Python calls; null with an exception set if it did.
template <class Body>
PyObject* guarded(Body&& body) {
  try {
    const NativeCall call;
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// Tells the owner something; what goes wrong in it is told to nobody who could help.
template <class... Arguments>
void tell(HttpConnection& connection, const char* method, Arguments&&... arguments) {
  const auto owner = py::reinterpret_borrow<py::object>(connection.owner);
  try {
    owner.attr(method)(std::forward<Arguments>(arguments)...);
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable(owner);
  }
}

// The request under way has ended.
void settle(HttpConnection& connection) {
  connection.busy = false;
  if (std::exchange(connection.watched, false) && connection.owner != nullptr) {
    tell(connection, "unwatch");
  }
  connection.state.request = nullptr;
  connection.state.target = nullptr;
  connection.lane->ended();
}

void go_on(HttpConnection& connection) {
  if (connection.waiting && connection.owner != nullptr) {
    connection.waiting = false;
    tell(connection, "go_on");
  }
}

// ---- what Python calls -----------------------------------------------------------------------

py::object behind(PyObject* data, std::size_t offset) {
  return offset == 0 ? py::reinterpret_borrow<py::object>(data)
                     : py::bytes(PyBytes_AS_STRING(data) + offset,
                                 static_cast<std::size_t>(PyBytes_GET_SIZE(data)) - offset);
}

// Takes the requests that `data` has, one after the other, as long as nothing else is to be done,
// and gives the owner the rest.
void receive_all(HttpConnection& connection, PyObject* data) {
  const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(data));
  std::size_t offset = 0;
  while (offset < size && connection.open && !connection.busy && connection.lane->taking()) {
    const Taken taken = connection.lane->take(connection, data, offset);
    if (taken.by == Taken::By::kPlain) {
      py::handle(connection.owner).attr("receive_plain")(behind(data, offset), taken.size);
      return;
    }
    if (taken.by == Taken::By::kNobody) {
      break;
    }
    offset += taken.size;
  }
  if ((offset < size || size == 0) && connection.owner != nullptr) {
    const bool waits = connection.busy && size > 0;
    connection.waiting |= waits;
    py::handle(connection.owner).attr(waits ? "wait" : "receive_slowly")(behind(data, offset));
  }
}

PyObject* receive(PyObject* object, PyObject* data) {
  return guarded([&]() -> PyObject* {
    if (!PyBytes_CheckExact(data)) {
      throw py::type_error("a connection receives bytes");
    }
    receive_all(self_of(object), data);
    Py_RETURN_NONE;
  });
}

PyObject* take(PyObject* object, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    if (count != 2) {
      throw py::type_error("take() wants a head and a body");
    }
    HttpConnection& connection = self_of(object);
    const auto& head = py::handle(arguments[0]).cast<const RequestHead&>();
    const auto body = py::reinterpret_borrow<py::object>(arguments[1]);
    return PyBool_FromLong(connection.lane->take(connection, head, body) ? 1 : 0);
  });
}

PyObject* serves(PyObject* object, PyObject* path) {
  return guarded([&]() -> PyObject* {
    HttpConnection& connection = self_of(object);
    const auto view = py::handle(path).cast<std::string_view>();
    return PyBool_FromLong(connection.lane->target(connection, view) != nullptr ? 1 : 0);
  });
}

PyObject* attach(PyObject* object, PyObject* write) {
  Py_XSETREF(self_of(object).write, write == Py_None ? nullptr : Py_NewRef(write));
  Py_RETURN_NONE;
}

PyObject* expire(PyObject* object, PyObject*) {
  return guarded([&]() -> PyObject* {
    HttpConnection& connection = self_of(object);
    const RequestPtr request = connection.state.request;
    connection.watched = false;
    if (request != nullptr && connection.state.target->version->expire(*request)) {
      send_failure(connection, *connection.state.target, overdue(), connection.state.id);
    }
    Py_RETURN_NONE;
  });
}

PyObject* leave(PyObject* object, PyObject*) {
  return guarded([&]() -> PyObject* {
    HttpConnection& connection = self_of(object);
    py::object route = py::none();
    if (connection.busy) {
      route = connection.state.target->count->route;
      if (connection.state.request != nullptr) {
        // It may come back only with the next batch; nobody waits for that.
        static_cast<void>(connection.state.target->version->cancel(*connection.state.request));
      }
    }
    connection.open = false;
    if (connection.busy) {
      settle(connection);
    }
    Py_CLEAR(connection.write);
    Py_CLEAR(connection.owner);
    return route.release().ptr();
  });
}

// ---- the type --------------------------------------------------------------------------------

PyObject* create(PyTypeObject* type, PyObject* arguments, PyObject*) {
  PyObject* lane = nullptr;
  PyObject* owner = nullptr;
  if (PyArg_ParseTuple(arguments, "OO", &lane, &owner) == 0) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    auto* const shared = py::handle(lane).cast<HttpLane*>();
    auto* const object = type->tp_alloc(type, 0);
    if (object == nullptr) {
      throw py::error_already_set();
    }
    HttpConnection& connection = self_of(object);
    new (&connection.state) HttpConnection::State();
    connection.lane = shared;
    connection.lane_object = Py_NewRef(lane);
    connection.owner = Py_NewRef(owner);
    return object;
  });
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  const HttpConnection& connection = self_of(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(connection.owner);
  Py_VISIT(connection.write);
  Py_VISIT(connection.lane_object);
  return 0;
}

int clear(PyObject* object) {
  HttpConnection& connection = self_of(object);
  connection.open = false;
  Py_CLEAR(connection.owner);
  Py_CLEAR(connection.write);
  return 0;
}

void destroy(PyObject* object) {
  HttpConnection& connection = self_of(object);
  PyTypeObject* const type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  connection.state.~State();
  Py_CLEAR(connection.lane_object);
  type->tp_free(object);
  Py_DECREF(type);
}

template <bool HttpConnection::* kMember>
PyObject* get_flag(PyObject* object, void*) {
  return PyBool_FromLong(self_of(object).*kMember ? 1 : 0);
}

template <bool HttpConnection::* kMember>
int set_flag(PyObject* object, PyObject* value, void*) {
  const int flag = value == nullptr ? -1 : PyObject_IsTrue(value);
  if (flag < 0) {
    return -1;
  }
  self_of(object).*kMember = flag == 1;
  return 0;
}

PyObject* get_priority(PyObject* object, void*) {
  const RequestPtr& request = self_of(object).state.request;
  return PyLong_FromLong(request == nullptr ? 0 : request->priority);
}

PyObject* get_used(PyObject* object, void*) { return PyLong_FromLongLong(self_of(object).used); }

PyMethodDef methods[] = {
    {"receive", &receive, METH_O, nullptr},
    {"take", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&take)), METH_FASTCALL,
     nullptr},
    {"serves", &serves, METH_O, nullptr},
    {"attach", &attach, METH_O, nullptr},
    {"expire", &expire, METH_NOARGS, nullptr},
    {"leave", &leave, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"open", &get_flag<&HttpConnection::open>, &set_flag<&HttpConnection::open>, nullptr, nullptr},
    {"busy", &get_flag<&HttpConnection::busy>, nullptr, nullptr, nullptr},
    {"waiting", &get_flag<&HttpConnection::waiting>, &set_flag<&HttpConnection::waiting>, nullptr,
     nullptr},
    {"priority", &get_priority, nullptr, nullptr, nullptr},
    {"used_ns", &get_used, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyObject* http_connection_type() {
  static PyType_Slot slots[] = {
      {Py_tp_new, reinterpret_cast<void*>(&create)},
      {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
      {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(&clear)},
      {Py_tp_methods, methods},
      {Py_tp_getset, attributes},
      {0, nullptr},
  };
  static PyType_Spec spec = {"pyserve._C.HttpConnection", sizeof(HttpConnection), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  PyObject* const type = PyType_FromSpec(&spec);
  if (type == nullptr) {
    throw py::error_already_set();
  }
  return type;
}

Status overdue() {
  return {Code::kDeadlineExceeded, "the deadline passed before the request was answered"};
}

void watch_deadline(HttpConnection& connection) {
  const Nanos deadline = connection.state.request->deadline;
  if (deadline != kNever) {
    connection.watched = true;
    tell(connection, "watch", deadline);
  }
}

void send_answer(HttpConnection& connection, std::string_view answer) {
  settle(connection);
  const auto bytes = py::reinterpret_steal<py::object>(
      PyBytes_FromStringAndSize(answer.data(), static_cast<Py_ssize_t>(answer.size())));
  if (!bytes) {  // no memory: the connection cannot go on
    PyErr_WriteUnraisable(reinterpret_cast<PyObject*>(&connection));
    if (connection.owner != nullptr) {
      tell(connection, "close_after_answer");
    }
    return;
  }
  if (connection.write != nullptr) {
    const auto write = py::reinterpret_borrow<py::object>(connection.write);
    const auto done =
        py::reinterpret_steal<py::object>(PyObject_CallOneArg(write.ptr(), bytes.ptr()));
    if (!done) {
      PyErr_WriteUnraisable(write.ptr());
    }
  }
  if (connection.lane->closing() && connection.owner != nullptr) {
    tell(connection, "close_after_answer");
  }
  go_on(connection);
}

void send_failure(HttpConnection& connection, const HttpTarget& target, const Status& status,
                  const std::string& id) {
  if (connection.owner == nullptr) {
    return;
  }
  const std::shared_ptr<RouteCount> count = target.count;
  const VersionPtr version = target.version;
  settle(connection);
  tell(connection, "fail", count->route, code_name(status.code), status.message, version->name(),
       version->number(), id);
  go_on(connection);
}

void give_back(HttpConnection& connection, const py::bytes& text) {
  settle(connection);
  if (connection.owner != nullptr) {
    tell(connection, "receive_plain", text, PyBytes_GET_SIZE(text.ptr()));
    go_on(connection);
  }
}

}  // namespace pyserve::python
