// request.h - one client call on its way through a model version.
//
// Life: a submitter fills the constant part and hands it to Batcher::submit(); exactly one
// thread at a time then owns it (the ring, the instance that pulled it, the completion queue,
// the reader).  What the submitter attached - a buffer, a future, Python tensors - comes back
// with the request and dies on the submitter's side, so that an instance never needs the GIL.
//
// Exactly one of complete, cancel and expire wins `claim`; the request is delivered exactly
// once whichever it was.
//
// Happens-before:
//   everything an instance writes (status, outputs, timing)
//       -> deliver(): completion queue push, or `phase_` exchange (acq_rel)
//       -> the reader's drain, or the waiting caller's acquire load of `phase_`.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/claim.h"
#include "base/clock.h"
#include "base/completion_queue.h"
#include "base/status.h"
#include "base/waiter.h"
#include "batching/backlog.h"
#include "batching/urgency.h"
#include "tensor/value.h"

namespace pyserve {

struct Request;
using RequestPtr = std::shared_ptr<Request>;
using RequestQueue = CompletionQueue<Request>;

// Whatever the submitter must get back; the core only carries it.
class Attachment {
 public:
  Attachment() = default;
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;
  virtual ~Attachment() = default;
};

struct Timing {
  Nanos queue = 0;  // admission until the batch was formed
  Nanos copy_in = 0;
  Nanos compute = 0;
  Nanos copy_out = 0;
  std::int64_t batch_size = 0;  // rows run together
};

struct Request {
  // Constant after submit.
  Values inputs;
  std::int64_t rows = 1;
  Nanos deadline = kNever;
  Priority priority = kNormalPriority;
  Nanos arrival = 0;
  Nanos urgency = 0;               // its place in the order, see urgency.h
  Backlog::Place backlog_place{};  // where it is counted while it waits, if it has a deadline
  bool trial = false;              // admitted to learn whether its deadline can be met after all
  std::size_t key = 0;             // Padding::key(inputs)
  bool borrows = false;            // inputs point into memory of the attachment
  bool is_part = false;            // rows of another request, which alone is counted
  bool keeps_outputs = true;       // the caller may keep a row for long: give it its own memory
  std::unique_ptr<Attachment> attachment;
  std::shared_ptr<RequestQueue> queue;  // where it is delivered; null: a caller waits in wait()

  Claim claim;
  std::atomic<bool> queued{false};  // counted by admission as waiting; whoever clears it uncounts

  // Written by the instance that owns it, before delivery.
  Status status;
  Values outputs;
  std::vector<std::string> names;  // of the outputs, where the signature does not name them
  Timing timing;

  CompletionNode<Request> completion;  // the completion queue's link

  // For a caller that waits: true once delivered.  False: `until` passed.
  bool wait(Nanos until, Nanos spin_ns, const Clock& clock);
  // The waiting caller leaves.  True: the request was not delivered yet and will go to the
  // orphans' queue instead; false: it is delivered after all.
  bool abandon() noexcept;

  // Hands finished requests back, with one wake-up for those that go to the same queue;
  // `orphans` takes those whose caller has left.  Leaves null pointers behind.
  static void deliver(std::span<RequestPtr> requests, RequestQueue& orphans) noexcept;

 private:
  static void deliver_to_caller(RequestPtr request, RequestQueue& orphans) noexcept;

  enum class Phase : std::uint8_t { kWaiting, kDelivered, kAbandoned };
  std::atomic<Phase> phase_{Phase::kWaiting};
  Waiter delivered_;
};

}  // namespace pyserve
