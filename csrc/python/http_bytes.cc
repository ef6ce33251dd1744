#include "python/http_bytes.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace pyserve::python {
namespace {

py::object parse_head(const py::bytes& text, std::size_t offset) {
  const std::string_view view = text;
  if (offset > view.size()) {
    return py::none();
  }
  const std::optional<HttpHead> head = parse_http_head(view.substr(offset));
  return head.has_value() ? py::cast(RequestHead{.text = text, .begin = offset, .head = *head})
                          : py::none();
}

bool begins_head(const py::bytes& text, std::size_t offset) {
  const std::string_view view = text;
  return offset <= view.size() && begins_http_head(view.substr(offset));
}

}  // namespace

std::size_t RequestBody::append(const py::bytes& text, std::size_t offset) {
  const std::string_view view = text;
  const std::string_view rest = view.substr(std::min(offset, view.size()));
  const std::size_t taken = std::min(rest.size(), missing());
  std::memcpy(bytes_.get() + filled_, rest.data(), taken);
  filled_ += taken;
  return taken;
}

py::memoryview RequestBody::room() {
  return py::memoryview::from_memory(bytes_.get() + filled_, static_cast<py::ssize_t>(missing()));
}

void RequestBody::advance(std::size_t count) { filled_ += std::min(count, missing()); }

void define_http_bytes(py::module_& m) {
  m.def("parse_head", &parse_head, py::arg("text"), py::arg("offset"));
  m.def("begins_head", &begins_head, py::arg("text"), py::arg("offset"));
  py::class_<RequestHead>(m, "RequestHead")
      .def_property_readonly(
          "text",
          [](const RequestHead& h) { return py::bytes(h.view().substr(0, h.head.head_bytes)); })
      .def_property_readonly("target", [](const RequestHead& h) { return h.head.target; })
      .def_property_readonly("head_bytes", [](const RequestHead& h) { return h.head.head_bytes; })
      .def_property_readonly("body_bytes", [](const RequestHead& h) { return h.head.body_bytes; })
      .def_property_readonly("close", [](const RequestHead& h) { return h.head.close; })
      .def_property_readonly("origin", [](const RequestHead& h) { return h.head.origin; })
      .def_property_readonly("ordinary", [](const RequestHead& h) { return h.head.ordinary; });
  py::class_<RequestBody>(m, "RequestBody")
      .def(py::init<std::size_t>(), py::arg("size"))
      .def("append", &RequestBody::append, py::arg("text"), py::arg("offset"))
      .def("room", &RequestBody::room)
      .def("advance", &RequestBody::advance, py::arg("count"))
      .def_property_readonly("missing", &RequestBody::missing)
      .def("content", &RequestBody::content);
}

}  // namespace pyserve::python
