// What gRPC costs without Python: an empty callback handler of gRPC C++ with the messages of a tiny
// model (16 floats in, 4 out).  A sketch to measure with, no part of the product;
// benchmarks/README.md has its figures.  To build it (Debian: libgrpc++-dev,
// protobuf-compiler-grpc):
//
//   protoc -I pyserve/protos --cpp_out=build --grpc_out=build \
//     --plugin=protoc-gen-grpc=$(which grpc_cpp_plugin) inference.proto model_config.proto
//   g++ -std=c++17 -O2 -I build benchmarks/sketches/grpc_callback.cc build/inference.*.cc \
//     build/model_config.pb.cc $(pkg-config --cflags --libs grpc++ protobuf) -o build/grpc_callback
//
// It prints the port that it listens on.

#include <grpcpp/grpcpp.h>

#include <iostream>
#include <memory>
#include <string>

#include "inference.grpc.pb.h"

namespace {

class Empty final : public inference::GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    response->set_model_name(request->model_name());
    response->set_model_version("1");
    auto* output = response->add_outputs();
    output->set_name("y");
    output->set_datatype("FP32");
    output->add_shape(1);
    output->add_shape(4);
    response->add_raw_output_contents(std::string(4 * sizeof(float), '\0'));
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

}  // namespace

int main() {
  Empty service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::cout << port << std::endl;
  server->Wait();
}
