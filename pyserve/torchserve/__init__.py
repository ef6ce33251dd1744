"""TorchServe's archives, settings and registrations, in terms of model folders; no protocol."""
