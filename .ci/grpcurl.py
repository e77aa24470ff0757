"""As much of grpcurl as the lines of docs/grpc.md need, by the board's reflection: `list`, `describe`, and calls."""

import sys

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import MethodDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status


def call(channel, pool, name, data, metadata, timeout):
    service, method = name.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(method)
    request = json_format.Parse(data, GetMessageClass(method.input_type)())
    about = MethodDescriptorProto()
    method.CopyToProto(about)
    make = channel.unary_stream if about.server_streaming else channel.unary_unary
    answer = GetMessageClass(method.output_type)
    answers = make(f"/{name}", type(request).SerializeToString, answer.FromString)(
        request, metadata=metadata, timeout=timeout
    )
    for answer in answers if about.server_streaming else [answers]:
        print(json_format.MessageToJson(answer))


def main(arguments):
    data, metadata, timeout, rest = "{}", [], 10, []
    arguments = iter(arguments)
    for argument in arguments:
        if argument == "-plaintext":
            continue
        if argument == "-d":
            data = next(arguments)
        elif argument == "-H":
            metadata.append(tuple(next(arguments).split(": ", 1)))
        elif argument == "-max-time":
            timeout = float(next(arguments))
        elif argument.startswith("-"):
            sys.exit(f"{argument} is none that is known here")
        else:
            rest.append(argument)
    address, *what = rest
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        match what:
            case ["list"]:
                print("\n".join(sorted(database.get_services())))
            case ["describe", name]:
                described = pool.FindMethodByName(name)
                print(f"rpc {described.name} ( .{described.input_type.full_name} ) returns "
                      f"( .{described.output_type.full_name} );")
            case [name]:
                try:
                    call(channel, pool, name, data, metadata, timeout)
                except grpc.RpcError as error:
                    print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}")
                    print(rpc_status.from_call(error))
                    sys.exit(64 + error.code().value[0])


main(sys.argv[1:])
