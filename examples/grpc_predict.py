"""The simplest possible client: one row of numbers in, one number out.

pyserve zoo build affine -o models
pyserve serve --model-repository models --grpc-port 12345
python examples/grpc_predict.py

Its stub is made from pyserve/protos/model_server.proto, in the folder it is run from:

python -m grpc_tools.protoc -I pyserve/protos --python_out=. --grpc_python_out=. model_server.proto
"""

import struct
import sys

import grpc
import model_server_pb2 as messages
import model_server_pb2_grpc as service

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:12345"
row = struct.pack("<4f", 1, 2, 3, 4)
with grpc.insecure_channel(address) as channel:
    server = service.ModelServerStub(channel)
    answer = server.Predict(messages.Request(model_name="affine", input_data=row))
print(answer.result)
