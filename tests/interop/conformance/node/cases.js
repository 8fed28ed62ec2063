// The cases, by name. Each takes the server's address.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const calls = require('./calls');

const { MIB, TIMEOUT_MS, big, connected, output, refusal, simple, sizeOf, sizesOf, unary, within, zeros } = calls;
const { status } = grpc;
const UP = [27_182, 8, 1_828, 45_904];
const DOWN = [31_415, 9, 2_653, 58_979];
const LARGE_UP = 271_828;
const LARGE_DOWN = 314_159;
const INITIAL = 'x-grpc-test-echo-initial';
const TRAILING = 'x-grpc-test-echo-trailing-bin';
const ALGORITHMS = { deflate: 1, gzip: 2 };
const AT_ONCE = 40;
const TOO_MANY = 200;
const SUM = UP.reduce((sum, size) => sum + size);

const requests = () => UP.map((up, index) => output([DOWN[index]], up));
const ok = async (client) => assert.equal(sizeOf((await unary(client, 'UnaryCall', simple(1, 1))).response), 1);
const plain = (run) => (address) => connected(address, {}, run);

const metadataOf = (values) => {
  const metadata = new grpc.Metadata();
  for (const [name, value] of values) metadata.add(name, value);
  return metadata;
};

/** Refused with RESOURCE_EXHAUSTED, and the connection goes on. */
const exhausted = (options, request, metadata) => (address) =>
  connected(address, options, async (client) => {
    assert.equal((await refusal(unary(client, 'UnaryCall', request, metadata))).code, status.RESOURCE_EXHAUSTED);
    await ok(client);
  });

/**
 * Each call on a connection of its own: grpc-js finds no compression but the first in a server's list that has blanks after its
 * commas, as that of gRPC's core has, and compresses no more.
 */
const compressedRequests = (algorithm) => async (address) => {
  const options = { 'grpc.default_compression_algorithm': ALGORITHMS[algorithm] };
  await connected(address, options, async (client) => {
    assert.equal(sizeOf((await unary(client, 'UnaryCall', simple(LARGE_UP, 10))).response), 10);
  });
  await connected(address, options, async (client) => {
    const sum = await calls.clientStream(client, 'StreamingInputCall', UP.map((size) => ({ payload: zeros(size) })));
    assert.equal(sum.aggregated_payload_size, SUM);
  });
};

const compressedResponse = (algorithm) =>
  plain(async (client) => {
    const request = simple(10, LARGE_DOWN, { response_compressed: { value: true } });
    const { response } = await unary(client, 'UnaryCall', request, metadataOf([['x-response-encoding', algorithm]]));
    assert.equal(sizeOf(response), LARGE_DOWN);
  });

const unimplemented = (path) =>
  plain(async (client) => {
    const same = (bytes) => bytes;
    const call = new Promise((resolve, reject) => {
      const end = (error, answer) => (error ? reject(error) : resolve(answer));
      client.makeUnaryRequest(path, same, same, Buffer.alloc(0), new grpc.Metadata(), within(TIMEOUT_MS), end);
    });
    assert.equal((await refusal(call)).code, status.UNIMPLEMENTED);
  });

const unaryCalls = {
  empty_unary: plain(async (client) => assert.deepEqual((await unary(client, 'EmptyCall', {})).response, {})),
  large_unary: plain(async (client) => {
    const { response } = await unary(client, 'UnaryCall', simple(LARGE_UP, LARGE_DOWN));
    assert.equal(sizeOf(response), LARGE_DOWN);
  }),
  status_code_and_message: plain(async (client) => {
    for (const [name, code] of Object.entries(status).filter(([, value]) => Number(value) > 0)) {
      const asked = { code, message: `test status ${name}` };
      const unaryError = await refusal(unary(client, 'UnaryCall', { response_status: asked }));
      const stream = client.FullDuplexCall(within(TIMEOUT_MS));
      stream.end({ response_status: asked });
      const streamError = await refusal(sizesOf(stream));
      for (const error of [unaryError, streamError]) {
        assert.deepEqual([error.code, error.details], [code, asked.message]);
      }
    }
  }),
  special_status_message: plain(async (client) => {
    const message = '\t\n100 % whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
    const error = await refusal(unary(client, 'UnaryCall', { response_status: { code: status.UNKNOWN, message } }));
    assert.deepEqual([error.code, error.details], [status.UNKNOWN, message]);
  }),
  custom_metadata: plain(async (client) => {
    const text = 'test_initial_metadata_value';
    const bytes = Buffer.from('0a0b0a0b0a0b', 'hex');
    const metadata = metadataOf([[INITIAL, text], [TRAILING, bytes]]);
    const { initial, trailing } = await unary(client, 'UnaryCall', simple(1, 1), metadata);
    const stream = client.FullDuplexCall(metadata, within(TIMEOUT_MS));
    const seen = [once(stream, 'metadata'), once(stream, 'status')];
    stream.end(output([1], 1));
    assert.deepEqual(await sizesOf(stream), [1]);
    const [[streamInitial], [{ metadata: streamTrailing }]] = await Promise.all(seen);
    for (const one of [initial, streamInitial]) assert.deepEqual(one.get(INITIAL), [text]);
    for (const one of [trailing, streamTrailing]) assert.deepEqual(one.get(TRAILING), [bytes]);
  }),
  binary_metadata: plain(async (client) => {
    const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const values = [every, Buffer.from([0]), Buffer.from('a,b'), Buffer.from(every).reverse()];
    const { trailing } = await unary(client, 'UnaryCall', simple(0, 0), metadataOf(values.map((one) => [TRAILING, one])));
    assert.deepEqual(trailing.get(TRAILING), values);
  }),
  unimplemented_method: unimplemented('/grpc.testing.TestService/UnimplementedCall'),
  unimplemented_service: unimplemented('/grpc.testing.UnimplementedService/UnimplementedCall'),
};

const streamingCalls = {
  client_streaming: plain(async (client) => {
    const sum = await calls.clientStream(client, 'StreamingInputCall', UP.map((size) => ({ payload: zeros(size) })));
    assert.equal(sum.aggregated_payload_size, SUM);
  }),
  server_streaming: plain(async (client) => {
    assert.deepEqual(await sizesOf(client.StreamingOutputCall(output(DOWN), within(TIMEOUT_MS))), DOWN);
  }),
  ping_pong: plain(async (client) => {
    const stream = client.FullDuplexCall(within(TIMEOUT_MS));
    const all = requests();
    stream.write(all[0]);
    const sizes = await sizesOf(stream, (came) => (came < all.length ? stream.write(all[came]) : stream.end()));
    assert.deepEqual(sizes, DOWN);
  }),
  empty_stream: plain(async (client) => {
    const stream = client.FullDuplexCall(within(TIMEOUT_MS));
    stream.end();
    assert.deepEqual(await sizesOf(stream), []);
  }),
  empty_messages: plain(async (client) => {
    const stream = client.FullDuplexCall(within(TIMEOUT_MS));
    for (const sizes of [[0], [], [0, 0]]) stream.write(output(sizes));
    stream.end();
    assert.deepEqual(await sizesOf(stream), [0, 0, 0]);
    const sum = await calls.clientStream(client, 'StreamingInputCall', [{}, { payload: zeros(0) }]);
    assert.equal(sum.aggregated_payload_size, 0);
  }),
  half_duplex: plain(async (client) => {
    const stream = client.HalfDuplexCall(within(TIMEOUT_MS));
    for (const request of requests()) stream.write(request);
    stream.end();
    assert.deepEqual(await sizesOf(stream), DOWN);
  }),
  timeout_on_sleeping_server: plain(async (client) => {
    const began = Date.now();
    const stream = client.StreamingOutputCall(output([1], 0, 5_000_000), within(200));
    assert.equal((await refusal(sizesOf(stream))).code, status.DEADLINE_EXCEEDED);
    assert.ok(Date.now() - began < 3_000);
  }),
  cancel_after_begin: plain(async (client) => {
    const call = calls.clientStream(client, 'StreamingInputCall', [], (stream) => stream.cancel());
    assert.equal((await refusal(call)).code, status.CANCELLED);
  }),
  cancel_after_first_response: plain(async (client) => {
    const stream = client.FullDuplexCall(within(TIMEOUT_MS));
    stream.write(output([31_415], 27_182));
    assert.equal((await refusal(sizesOf(stream, () => stream.cancel()))).code, status.CANCELLED);
  }),
  early_status: plain(async (client) => {
    const stream = client.FullDuplexCall(within(TIMEOUT_MS));
    stream.write({ response_status: { code: status.ABORTED, message: 'enough' } });
    const error = await refusal(sizesOf(stream));
    assert.deepEqual([error.code, error.details], [status.ABORTED, 'enough']);
  }),
  slow_reader: plain(async (client) => {
    const sizes = Array(32).fill(256 << 10);
    const taken = [];
    for await (const response of client.StreamingOutputCall(output(sizes), within(TIMEOUT_MS))) {
      taken.push(sizeOf(response));
      await sleep(20);
    }
    assert.deepEqual(taken, sizes);
  }),
};

const compression = {
  client_compressed_gzip: compressedRequests('gzip'),
  client_compressed_deflate: compressedRequests('deflate'),
  server_compressed_gzip: compressedResponse('gzip'),
  server_compressed_deflate: compressedResponse('deflate'),
  server_compressed_streaming: plain(async (client) => {
    const one = { size: 31_415, compressed: { value: true } };
    const other = { size: 92_653, compressed: { value: false } };
    const stream = client.StreamingOutputCall({ response_parameters: [one, other] }, within(TIMEOUT_MS));
    assert.deepEqual(await sizesOf(stream), [31_415, 92_653]);
  }),
};

const bounds = {
  large_messages: (address) =>
    connected(address, big, async (client) => {
      const { response } = await unary(client, 'UnaryCall', simple(6 * MIB, 6 * MIB));
      assert.equal(sizeOf(response), 6 * MIB);
    }),
  request_over_limit: exhausted(big, simple(9 * MIB, 0)),
  inflated_over_limit: exhausted({ ...big, 'grpc.default_compression_algorithm': ALGORITHMS.gzip }, simple(9 * MIB, 0)),
  response_over_limit: exhausted({}, simple(1, 6 * MIB)),
  metadata_over_limit: exhausted({}, simple(1, 1), metadataOf([['x-large', 'x'.repeat(40_000)]])),
  keepalive: (address) => {
    const options = { 'grpc.keepalive_time_ms': 200, 'grpc.keepalive_timeout_ms': 500 };
    return connected(address, options, async (client) => {
      assert.deepEqual(await sizesOf(client.StreamingOutputCall(output([1], 0, 1_500_000), within(TIMEOUT_MS))), [1]);
    });
  },
  many_at_once: plain(async (client) => {
    const all = Array.from({ length: AT_ONCE }, (_, index) => unary(client, 'UnaryCall', simple(10_000, 1_000 * index)));
    const sizes = (await Promise.all(all)).map(({ response }) => sizeOf(response));
    assert.deepEqual(sizes, Array.from({ length: AT_ONCE }, (_, index) => 1_000 * index));
  }),
  more_than_at_once: plain(async (client) => {
    await ok(client);
    const began = Date.now();
    const one = (_, index) => sizesOf(client.StreamingOutputCall(output([index], 0, 100_000), within(TIMEOUT_MS)));
    const sizes = await Promise.all(Array.from({ length: TOO_MANY }, one));
    assert.deepEqual(sizes, Array.from({ length: TOO_MANY }, (_, index) => [index]));
    assert.ok(Date.now() - began > 300);
  }),
};

module.exports = { ...unaryCalls, ...streamingCalls, ...compression, ...bounds };
