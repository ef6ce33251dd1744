// http_bytes.h - requests as they come over HTTP: a head, and a body that may come in pieces.
//
// Everything here needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "wire/http_head.h"

namespace pyserve::python {

namespace py = pybind11;

// The head of a request; keeps the bytes that it is a view of.
struct RequestHead {
  py::bytes text;
  std::size_t begin;  // of the request, in `text`
  HttpHead head;

  std::string_view view() const { return static_cast<std::string_view>(text).substr(begin); }
};

// A body that arrives in pieces: memory of the length that its head declares, which is not touched,
// and so costs nothing, before the bytes come.
class RequestBody {
 public:
  explicit RequestBody(std::size_t size)
      : size_(size), bytes_(std::make_unique_for_overwrite<std::byte[]>(size)) {}

  // Takes what belongs to this body of `text` from `offset` on; returns how much that was.
  std::size_t append(const py::bytes& text, std::size_t offset);

  // Where the rest goes, for who writes it himself and says so by advance(); valid while this
  // lives.
  py::memoryview room();
  void advance(std::size_t count);

  std::size_t missing() const { return size_ - filled_; }
  // What has come so far.
  py::bytes content() const { return {reinterpret_cast<const char*>(bytes_.get()), filled_}; }
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes_.get()), filled_}; }

 private:
  const std::size_t size_;
  std::size_t filled_ = 0;
  const std::unique_ptr<std::byte[]> bytes_;
};

// RequestHead, RequestBody, parse_head and begins_head.
void define_http_bytes(py::module_& m);

}  // namespace pyserve::python
