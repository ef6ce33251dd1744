// A request of the lane, seen from its bytes.
#include <string>
#include <string_view>

#include "python/http_lane.h"

namespace pyserve::python {

HttpConnection& HttpRequest::client() const {
  return *reinterpret_cast<HttpConnection*>(connection.ptr());
}

const std::byte* HttpRequest::data(std::size_t index) const {
  return inputs.values.empty()
             ? reinterpret_cast<const std::byte*>(bytes.body_view().data()) +
                   plan->inputs[index].offset
             : static_cast<const std::byte*>(inputs.values[index].tensor.const_data_ptr());
}

Values HttpRequest::values() const {
  return inputs.values.empty()
             ? planned_inputs(*plan, reinterpret_cast<const std::byte*>(bytes.body_view().data()))
             : inputs.values;
}

OipAnswerTiming HttpRequest::told(const Timing& timing, Nanos queue_ns) const {
  return {.parse_ns = parse_ns,
          .queue_ns = queue_ns,
          .batch_size = timing.batch_size,
          .copy_in_ns = timing.copy_in,
          .compute_ns = timing.compute,
          .copy_out_ns = timing.copy_out};
}

std::string_view RequestBytes::body_view() const {
  if (body) {
    return body.cast<const RequestBody&>().view();
  }
  return std::string_view(PyBytes_AS_STRING(text.ptr()) + begin + head_bytes, body_bytes);
}

py::bytes RequestBytes::whole() const {
  std::string all(PyBytes_AS_STRING(text.ptr()) + begin, head_bytes);
  all += body_view();
  return py::bytes(all);
}

}  // namespace pyserve::python
