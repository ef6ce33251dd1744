// collate.h - many requests' rows into one batch, and a batch's outputs back to them.
//
// Collating copies each row once; a batch of one request that needs no filling up is not copied at
// all.  Splitting gives views: whoever keeps a row for long takes its own memory (own_memory).
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <span>

#include "tensor/padding.h"
#include "tensor/staging.h"
#include "tensor/value.h"

namespace pyserve {

// Rows of `requests` (each one request's inputs, in the signature's order), one after the other,
// filled up to `shape` and the mask filled in where `padding` says so.  Precondition: they are
// stackable, and `shape` has room for them.  For a GPU they are gathered in `staging`, which is
// null for the CPU, and copied asynchronously on the current stream.
Values collate(std::span<const Values* const> requests, const Padding& padding,
               const BatchShape& shape, const c10::Device& device, Staging* staging = nullptr);

// Rows [begin, begin + rows) of every output, as views.
Values split(const Values& outputs, std::int64_t begin, std::int64_t rows);

// `outputs` on the CPU and contiguous.  What lies on a GPU is copied to `staging`, asynchronously
// on the current stream: see DeviceStream::fetch().
Values to_host(Values outputs, Staging* staging = nullptr);

// Replaces every tensor that shares storage with one of `borrowed` by a copy: an output that
// returns its input must not outlive the sender's buffer.
void detach_from(const Values& borrowed, Values& outputs);

// Replaces every tensor by a copy in memory of its own.
void own_memory(Values& outputs);

}  // namespace pyserve
